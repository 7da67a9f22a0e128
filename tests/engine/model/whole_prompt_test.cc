// Adapters that read a request's whole prompt, through the step loop: prompts are computed in one
// piece, whatever else runs, and a preempted request goes on with the same bits as one that ran
// alone.
#include <map>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/engine/model/loop_runner.h"
#include "tests/engine/model/step_harness.h"

namespace polyad {
namespace {

constexpr int64_t kRequestsEach = 2;

// Requests through `names`, of which all but "hub_lora" read whole prompts, alone and together.
void ExpectOwnBits(const std::string& model, const std::vector<std::string>& names) {
  TestModel test = LoadTestModel(GoldenPath("models/" + model), "cpu", ExactOptions());
  LoopRunner crowd(*test.model, 10);
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
    LoopRunner quiet(*test.model, 100);
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
