// Adapters whose terms a first pass weighs: the rule from logits to coefficients, and through the
// step loop both caches of a sequence: a request among others, its prompt in pieces, preempted and
// computed again, has the bits of one that ran alone, and gives every block back.
#include <cmath>

#include "engine/model/scaling_pass_runner.h"
#include "gtest/gtest.h"
#include "tests/engine/model/loop_runner.h"
#include "tests/engine/model/step_harness.h"

namespace polyad {
namespace {

std::vector<float> Apply(const CoefficientRule& rule, const std::vector<float>& logits) {
  std::vector<float> coefficients(logits.size());
  ApplyRule(rule, logits, coefficients);
  return coefficients;
}

void ExpectNear(const std::vector<float>& got, const std::vector<float>& expected) {
  ASSERT_EQ(got.size(), expected.size());
  for (size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], expected[i], 1e-6f) << i;
}

TEST(CoefficientRule, EachGroupIsOneDistribution) {
  CoefficientRule rule;
  rule.num_groups = 2;
  rule.num_experts = 2;
  rule.temperature = 0.5f;
  ExpectNear(Apply(rule, {0.0f, std::log(3.0f), 1.0f, 1.0f}), {0.1f, 0.9f, 0.5f, 0.5f});
}

TEST(CoefficientRule, TheLargestStayAndMayBeWeighedAnew) {
  CoefficientRule rule;
  rule.num_experts = 3;
  rule.softmax = false;
  rule.top_k = 2;
  ExpectNear(Apply(rule, {-1.0f, 2.0f, -3.0f}), {-1.0f, 2.0f, 0.0f});
  rule.softmax_of_top = true;
  const float one = 1.0f / (1.0f + std::exp(3.0f));
  ExpectNear(Apply(rule, {-1.0f, 2.0f, -3.0f}), {one, 1.0f - one, 0.0f});
  ExpectNear(Apply(rule, {0.0f, 0.0f, 0.0f}), {0.0f, 0.0f, 0.0f});
}

TEST(CoefficientRule, LargeLogitsStayFinite) {
  CoefficientRule rule;
  rule.num_experts = 2;
  rule.temperature = 1e-4f;
  ExpectNear(Apply(rule, {3e4f, -3e4f}), {1.0f, 0.0f});
}

TEST(ScalingPass, ARequestKeepsItsBitsThroughMatesPiecesAndPreemptions) {
  TestModel test = LoadTestModel(GoldenPath("models/llama"), "cpu", ExactOptions());
  LoopRunner crowd(*test.model, 24);
  std::map<int64_t, Answer> alone;
  for (const char* name : {"xlora", "xlora_top_of_each", "plain"}) {
    const std::string path = GoldenPath(std::string("adapters/llama/") + name);
    LoadAdapterSpec spec;
    spec.name = name;
    spec.path = path;
    ASSERT_TRUE(test.adapters->Load(spec, nullptr).ok()) << name;
    const auto adapter = *test.adapters->Acquire(name, "");
    EXPECT_EQ(adapter->num_caches(), std::string(name) == "plain" ? 1 : 2) << name;
    for (const GoldenPrompt& prompt : ReadGoldenPrompts(path)) {
      LoopRunner quiet(*test.model, 100);
      const int64_t number = quiet.Add(prompt, adapter);
      const Answer answer = quiet.Run()[number];
      EXPECT_EQ(answer.tokens, prompt.greedy) << name;
      for (int i = 0; i < 2; ++i) alone[crowd.Add(prompt, adapter)] = answer;
    }
  }
  EXPECT_EQ(crowd.Run(), alone);
  EXPECT_GT(crowd.num_preemptions(), 0);
  EXPECT_EQ(crowd.num_held_blocks(), 0);
}

}  // namespace
}  // namespace polyad
