// Whole tiny models on the emulated device: every op of every layer a CUDA kernel. In the exact
// mode each architecture with all of its golden adapters in one batch, held against what the
// original libraries computed; in bf16, and over quantised bases, to what its roundings may do.
// covers: kernels/cuda/product.cuh
#include <cmath>
#include <filesystem>

#include "gtest/gtest.h"
#include "kernels/backend_factory.h"
#include "tests/engine/model/golden_files.h"
#include "tests/engine/model/step_harness.h"
#include "tests/kernels/cuda/emulated_backend.h"

namespace polyad {
namespace {

constexpr int64_t kMaxRows = 512;  // of a step

// A model on the emulated device, and the first golden prompt of its base and of each adapter.
struct EmulatedModel {
  EmulatedModel(const std::string& name, ComputeMode mode)
      : device(new test::EmulatedBackend(mode, {})),
        test(LoadTestModel(GoldenModelFile(name), std::unique_ptr<Backend>(device))) {
    Add(nullptr, GoldenPath("models/" + name));
    if (!std::filesystem::exists(GoldenPath("adapters/" + name))) return;
    for (const std::string& adapter : GoldenNamesIn("adapters/" + name)) {
      const std::string path = GoldenPath("adapters/" + name + "/" + adapter);
      LoadAdapterSpec spec;
      spec.name = adapter;
      spec.path = path;
      spec.options = GoldenOptions(path);
      const StatusOr<LoadReport> report = test.adapters->Load(spec, nullptr);
      EXPECT_TRUE(report.ok()) << adapter << ": " << report.status();
      if (report.ok()) Add(*test.adapters->Acquire(adapter, ""), path);
    }
  }
  void Add(std::shared_ptr<const AdapterVersion> adapter, const std::string& path) {
    names.push_back(std::filesystem::path(path).filename().string());
    prompts.push_back(ReadGoldenPrompts(path)[0]);
    sequences.push_back(MakeSequence(prompts.back().tokens, std::move(adapter)));
  }
  // Of each sequence, as many together as a step takes.
  std::vector<std::vector<float>> Logits() {
    StepHarness harness(*test.model, 3);
    std::vector<std::vector<float>> logits;
    for (size_t begin = 0; begin < sequences.size();) {
      std::vector<TestChunk> chunks;
      int64_t rows = 0;
      for (size_t i = begin; i < sequences.size(); ++i) {
        const auto count = static_cast<int64_t>(sequences[i].tokens.size());
        if (rows + count > kMaxRows) break;
        rows += count;
        chunks.push_back({&sequences[i], count, static_cast<int64_t>(prompts[i].tokens.size())});
      }
      for (std::vector<float>& own : harness.Step(chunks)) logits.push_back(std::move(own));
      begin += chunks.size();
    }
    return logits;
  }

  test::EmulatedBackend* device;  // the test model's
  TestModel test;
  std::vector<std::string> names;
  std::vector<GoldenPrompt> prompts;
  std::vector<TestSequence> sequences;
};

class EmulatedGolden : public testing::TestWithParam<std::string> {};

TEST_P(EmulatedGolden, EveryTenantGetsWhatTheOriginalComputes) {
  EmulatedModel model(GetParam(), ComputeMode::kF32);
  const int64_t launches = model.device->num_launches();
  const std::vector<std::vector<float>> logits = model.Logits();
  ASSERT_EQ(model.device->fault(), "");
  EXPECT_GT(model.device->num_launches(), launches);
  ASSERT_EQ(logits.size(), model.names.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    EXPECT_LE(LogitError(logits[i], model.prompts[i].logits), kGoldenTolerance) << model.names[i];
  }
}

INSTANTIATE_TEST_SUITE_P(Models, EmulatedGolden,
                         testing::Values("gpt2", "llama", "llama3", "mistral", "qwen2", "qwen3"),
                         [](const auto& model) { return model.param; });

// Numbers that bf16 rounds one after the other on the way to a logit, half a unit each at most: of
// a layer two norms, four weights, the keys and values, attention's output and the activation, and
// of an adapter the two factors and the row between them at two sites; then the head and its norm.
double RoundingBound(int64_t num_layers) {
  constexpr double kHalfUnit = 0x1p-9;
  return static_cast<double>(15 * num_layers + 2) * kHalfUnit;
}

double RelativeError(const std::vector<float>& got, const std::vector<float>& want) {
  double error = 0;
  double norm = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    error += std::pow(static_cast<double>(got[i]) - want[i], 2);
    norm += std::pow(static_cast<double>(want[i]), 2);
  }
  return std::sqrt(error / norm);
}

class EmulatedInBf16 : public testing::TestWithParam<std::string> {};

TEST_P(EmulatedInBf16, EveryTenantIsAsNearToTheOriginalAsItsRoundingsAllow) {
  EmulatedModel model(GetParam(), ComputeMode::kAuto);
  const std::vector<std::vector<float>> logits = model.Logits();
  ASSERT_EQ(model.device->fault(), "");
  ASSERT_EQ(logits.size(), model.names.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    EXPECT_LE(RelativeError(logits[i], model.prompts[i].logits),
              RoundingBound(model.test.files->spec().num_layers))
        << model.names[i];
  }
}

INSTANTIATE_TEST_SUITE_P(Models, EmulatedInBf16, testing::ValuesIn(GoldenNamesIn("models")),
                         [](const auto& model) { return model.param; });

}  // namespace
}  // namespace polyad
