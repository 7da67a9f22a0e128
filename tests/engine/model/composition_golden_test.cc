// Compositions against PEFT's weighted combination (tests/golden/recipes/compositions.py), and in a
// batch with their parts: the same bits. covers: engine/adapters/composition.cc
#include <fstream>
#include <sstream>

#include "engine/io/json.h"
#include "gtest/gtest.h"
#include "tests/engine/model/golden_files.h"
#include "tests/engine/model/step_harness.h"

namespace polyad {
namespace {

using Case = std::tuple<std::string, std::string>;  // model, composition

std::vector<AdapterUse> UsesOf(const std::string& directory) {
  std::ifstream file(directory + "/composition.json");
  std::stringstream text;
  text << file.rdbuf();
  const StatusOr<OrderedJson> json = ParseOrderedJson(text.str(), "composition.json", JsonLimits{});
  POLYAD_CHECK(json.ok(), json.status().ToString().c_str());
  std::vector<AdapterUse> uses;
  for (const OrderedJson& part : (*json)["adapters"]) {
    uses.push_back({part["name"].get<std::string>(), part["scale"].get<float>()});
  }
  return uses;
}

class CompositionGolden : public testing::TestWithParam<Case> {
 protected:
  void Load(const std::string& backend) {
    const auto& [model, name] = GetParam();
    test_ = LoadTestModel(GoldenPath("models/" + model), backend, ExactOptions());
    directory_ = GoldenPath("compositions/" + model + "/" + name);
    uses_ = UsesOf(directory_);
    for (const AdapterUse& use : uses_) {
      LoadAdapterSpec spec;
      spec.name = use.name;
      spec.path = GoldenPath("adapters/" + model + "/" + use.name);
      const StatusOr<LoadReport> report = test_.adapters->Load(spec, nullptr);
      ASSERT_TRUE(report.ok()) << report.status();
    }
  }

  TestModel test_;
  std::string directory_;
  std::vector<AdapterUse> uses_;
};

TEST_P(CompositionGolden, LogitsAndGreedyTokensArePeftsWeightedCombination) {
  for (const std::string backend : {"reference", "cpu"}) {
    Load(backend);
    const auto composed = test_.adapters->Compose(uses_, "");
    ASSERT_TRUE(composed.ok()) << composed.status();
    StepHarness harness(*test_.model, 1);
    for (const GoldenPrompt& prompt : ReadGoldenPrompts(directory_)) {
      EXPECT_LE(LogitError(harness.LogitsAlone(prompt.tokens, *composed), prompt.logits),
                kGoldenTolerance);
      EXPECT_EQ(
          harness.Greedy(prompt.tokens, *composed, static_cast<int64_t>(prompt.greedy.size())),
          prompt.greedy);
    }
  }
}

TEST_P(CompositionGolden, ItsBitsAreTheSameBesideItsParts) {
  Load("cpu");
  std::vector<std::shared_ptr<const AdapterVersion>> tenants = {
      nullptr, *test_.adapters->Compose(uses_, "")};
  for (const AdapterUse& use : uses_) tenants.push_back(*test_.adapters->Acquire(use.name, ""));
  StepHarness harness(*test_.model, 2);
  const GoldenPrompt prompt = ReadGoldenPrompts(directory_)[1];
  const auto count = static_cast<int64_t>(prompt.tokens.size());
  std::vector<TestSequence> sequences;
  for (const auto& tenant : tenants) sequences.push_back({prompt.tokens, tenant, {}, 0});
  std::vector<TestChunk> chunks;
  for (TestSequence& sequence : sequences) chunks.push_back({&sequence, count, count});
  const auto mixed = harness.Step(chunks);
  for (size_t i = 0; i < tenants.size(); ++i) {
    EXPECT_EQ(harness.LogitsAlone(prompt.tokens, tenants[i]), mixed[i]) << i;
  }
}

TEST_P(CompositionGolden, EqualCompositionsShareAVersionAndOthersDoNot) {
  Load("reference");
  const auto first = *test_.adapters->Compose(uses_, "");
  EXPECT_EQ(first, *test_.adapters->Compose(uses_, ""));
  std::vector<AdapterUse> louder = uses_;
  louder[0].scale += 0.25f;
  EXPECT_NE(first->id(), (*test_.adapters->Compose(louder, ""))->id());
  EXPECT_TRUE(first->Uses((*test_.adapters->Acquire(uses_[0].name, ""))->id()));
  EXPECT_EQ(test_.adapters->Compose({{"nobody", 1.0f}}, "").status().code(),
            absl::StatusCode::kNotFound);
}

INSTANTIATE_TEST_SUITE_P(All, CompositionGolden,
                         testing::Values(Case("llama", "two"), Case("llama", "three_signs"),
                                         Case("gpt2", "two")),
                         [](const testing::TestParamInfo<Case>& test) {
                           return std::get<0>(test.param) + "_" + std::get<1>(test.param);
                         });

}  // namespace
}  // namespace polyad
