// Adapters that read a request's whole prompt, through the step loop: prompts are computed in one
// piece, whatever else runs, and a preempted request goes on with the same bits as one that ran
// alone.
#include <map>
#include <string>
#include <vector>

#include "engine/base/clock.h"
#include "engine/runtime/engine_loop.h"
#include "gtest/gtest.h"
#include "tests/engine/model/golden_files.h"
#include "tests/engine/model/step_harness.h"

namespace polyad {
namespace {

constexpr int64_t kRequestsEach = 2;

struct Answer {
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;

  friend bool operator==(const Answer&, const Answer&) = default;
};

// One engine without threads over a real model.
class Runner {
 public:
  Runner(Model& model, int64_t num_blocks)
      : loop_(OptionsOf(model, num_blocks), {model, clock_, inbox_, outputs_, registry_}) {}

  int64_t Add(const GoldenPrompt& prompt, std::shared_ptr<const AdapterVersion> adapter) {
    auto request = std::make_shared<Request>();
    request->prompt_tokens = prompt.tokens;
    request->adapter = std::move(adapter);
    request->sampling.temperature = 0;
    request->stopping.max_tokens = static_cast<int64_t>(prompt.greedy.size());
    request->stopping.ignore_eos = true;
    request->output.logprobs = 0;
    std::string id;
    Arrive arrive;
    arrive.number = *registry_.Begin(id);
    arrive.request = std::move(request);
    const int64_t number = arrive.number;
    EXPECT_TRUE(inbox_.TryPush(std::move(arrive)));
    return number;
  }

  std::map<int64_t, Answer> Run() {
    while (loop_.Step() || !loop_.state().idle()) {
    }
    std::map<int64_t, Answer> answers;
    for (const EngineOutput& output : outputs_.DrainNow()) {
      if (const auto* event = std::get_if<TokensEvent>(&output.event)) {
        Answer& answer = answers[output.number];
        answer.tokens.push_back(event->token_ids.at(0));
        answer.logprobs.push_back(event->token_logprobs.at(0).logprob);
      }
    }
    return answers;
  }
  int64_t num_preemptions() const { return loop_.load().num_preemptions; }

 private:
  static EngineLoop::Options OptionsOf(const Model& model, int64_t num_blocks) {
    EngineLoop::Options options;
    options.limits.scheduler = {.max_running = 8, .max_step_tokens = 64, .max_sample_rows = 16};
    options.limits.num_blocks = num_blocks;
    options.limits.max_context = model.max_context();
    options.vocab_size = model.spec().vocab_size;
    return options;
  }

  FakeClock clock_;
  Inbox inbox_{100};
  OutputQueue outputs_{10000};
  RequestRegistry registry_{100, 100};
  EngineLoop loop_;
};

// Requests through `names`, of which all but "hub_lora" read whole prompts, alone and together.
void ExpectOwnBits(const std::string& model, const std::vector<std::string>& names) {
  BackendOptions options;
  options.mode = ComputeMode::kF32;
  options.num_threads = 2;
  TestModel test = LoadTestModel(GoldenPath("models/" + model), "cpu", options);
  Runner crowd(*test.model, 10);
  std::map<int64_t, Answer> alone;
  for (const std::string& name : names) {
    const std::string path = GoldenPath("adapters/" + model + "/" + name);
    LoadAdapterSpec spec;
    spec.name = name;
    spec.path = path;
    const Status loaded = test.adapters->Load(spec, nullptr).status();
    ASSERT_TRUE(loaded.ok()) << loaded;
    const auto adapter = *test.adapters->Acquire(name, "");
    EXPECT_EQ(adapter->reads_whole_prompt(), name != "hub_lora") << name;
    const GoldenPrompt prompt = ReadGoldenPrompts(path).at(2);
    Runner quiet(*test.model, 100);
    const int64_t number = quiet.Add(prompt, adapter);
    const Answer answer = quiet.Run()[number];
    EXPECT_EQ(answer.tokens, prompt.greedy) << name;
    for (int64_t i = 0; i < kRequestsEach; ++i) alone[crowd.Add(prompt, adapter)] = answer;
  }
  EXPECT_EQ(crowd.Run(), alone);
  EXPECT_GT(crowd.num_preemptions(), 0);
}

TEST(WholePrompt, AGatedRequestKeepsItsBitsThroughMatesAndPreemptions) {
  ExpectOwnBits("gpt2", {"hub_unipelt", "hub_gated_prefix", "hub_gated_lora", "hub_lora"});
}

TEST(WholePrompt, ARoutedRequestKeepsItsBitsThroughMatesAndPreemptions) {
  ExpectOwnBits("llama", {"lily", "hub_lora"});
}

}  // namespace
}  // namespace polyad
