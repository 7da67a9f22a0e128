// A step's tokens that the emulated device draws are those that the host draws from its logits, in
// a batch with requests of which it draws none. covers: engine/runtime/sample_step.cc

#include <memory>

#include "gtest/gtest.h"
#include "tests/engine/model/forwarding_runner.h"
#include "tests/engine/model/loop_runner.h"
#include "tests/engine/model/step_harness.h"
#include "tests/kernels/cuda/emulated_backend.h"

namespace polyad {
namespace {

constexpr int64_t kNumBlocks = 20;
constexpr size_t kOutputTokens = 4;

// In front of a model: counts what is drawn on its device, or has the host draw everything.
class DrawingRunner final : public ForwardingRunner {
 public:
  DrawingRunner(Model& model, bool draws) : ForwardingRunner(model), draws_(draws) {}
  void Draw(FloatRows logits, std::span<const DrawArgs> draws, std::span<int32_t> tokens) override {
    if (!draws_) return StepRunner::Draw(logits, draws, tokens);
    ForwardingRunner::Draw(logits, draws, tokens);
    for (const int32_t token : tokens) num_drawn += token >= 0 ? 1 : 0;
  }

  size_t num_drawn = 0;

 private:
  const bool draws_;
};

TEST(DrawnOnDeviceTest, TokensAreThoseTheHostDraws) {
  const TestModel test = LoadTestModel(
      GoldenModelFile("llama"),
      std::make_unique<test::EmulatedBackend>(ComputeMode::kAuto, simt::EmulatorOptions{},
                                              /*guarded=*/true));
  const std::vector<SamplingParams> drawn = {{.temperature = 1.0f, .seed = 5},
                                             {.temperature = 0.9f, .top_k = 20, .seed = 6},
                                             {.temperature = 1.2f, .top_p = 0.8f, .seed = 7},
                                             {.temperature = 1.5f, .min_p = 0.01f, .seed = 8}};
  const std::vector<SamplingParams> not_drawn = {
      {.temperature = 0.0f},
      {.temperature = 1.0f, .seed = 9, .repetition_penalty = 1.3f},
      {.temperature = 1.0f, .seed = 10, .allowed_token_ids = {5, 6, 7}}};
  const auto answers = [&](DrawingRunner& runner) {
    LoopRunner loop(*test.model, LoopRunner::Cache{.num_blocks = kNumBlocks, .runner = &runner});
    GoldenPrompt prompt = ReadGoldenPrompts(GoldenPath("models/llama"))[0];
    prompt.greedy.resize(kOutputTokens);
    for (const SamplingParams& sampling : drawn) loop.Add(prompt, nullptr, sampling);
    for (const SamplingParams& sampling : not_drawn) loop.Add(prompt, nullptr, sampling);
    return loop.Run();
  };
  DrawingRunner device(*test.model, /*draws=*/true);
  DrawingRunner host(*test.model, /*draws=*/false);
  const auto by_device = answers(device);
  EXPECT_EQ(by_device, answers(host));
  EXPECT_EQ(by_device.size(), drawn.size() + not_drawn.size());
  EXPECT_EQ(device.num_drawn, drawn.size() * kOutputTokens);
}

}  // namespace
}  // namespace polyad
