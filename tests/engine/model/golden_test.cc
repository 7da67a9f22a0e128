// Tiny models of every architecture and their LoRA adapters against transformers and PEFT
// (tests/golden/README.md), in the exact mode, on the reference backend and on every instruction
// set of the CPU backend.

#include "gtest/gtest.h"
#include "kernels/backend_factory.h"
#include "tests/engine/model/golden_files.h"
#include "tests/engine/model/step_harness.h"

namespace polyad {
namespace {

void ExpectClose(const std::vector<float>& got, const std::vector<float>& expected) {
  EXPECT_LE(LogitError(got, expected), kGoldenTolerance);
}

struct Engine {
  std::string backend;
  std::string isa;
};

std::vector<Engine> Engines() {
  std::vector<Engine> engines = {{"reference", "auto"}};
  for (const char* isa : {"scalar", "avx2", "avx512", "amx"}) {
    BackendOptions options;
    options.isa = isa;
    if (MakeBackend("cpu", options).ok()) engines.push_back({"cpu", isa});
  }
  return engines;
}

BackendOptions ExactOptions(const std::string& isa) {
  BackendOptions options;
  options.mode = ComputeMode::kF32;
  options.num_threads = 2;
  options.isa = isa;
  return options;
}

using Case = std::tuple<Engine, std::string>;
std::string CaseName(const testing::TestParamInfo<Case>& info) {
  const auto& [engine, model] = info.param;
  return engine.backend + "_" + engine.isa + "_" + model;
}

class BaseGolden : public testing::TestWithParam<Case> {};

TEST_P(BaseGolden, LogitsAndGreedyTokensAreTransformers) {
  const auto& [engine, name] = GetParam();
  TestModel test = LoadTestModel(GoldenModelFile(name), engine.backend, ExactOptions(engine.isa));
  StepHarness harness(*test.model, 1);
  for (const GoldenPrompt& prompt : ReadGoldenPrompts(GoldenPath("models/" + name))) {
    ExpectClose(harness.LogitsAlone(prompt.tokens, nullptr), prompt.logits);
    EXPECT_EQ(harness.Greedy(prompt.tokens, nullptr, static_cast<int64_t>(prompt.greedy.size())),
              prompt.greedy);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, BaseGolden,
                         testing::Combine(testing::ValuesIn(Engines()),
                                          testing::ValuesIn(GoldenNamesIn("models"))),
                         CaseName);

class AdapterGolden : public testing::TestWithParam<Case> {};

// Every adapter of a model at once, beside the base, in one batch: each row is its own original's.
TEST_P(AdapterGolden, AMixedBatchGivesEachTenantItsOwnOriginal) {
  const auto& [engine, model_name] = GetParam();
  TestModel test =
      LoadTestModel(GoldenModelFile(model_name), engine.backend, ExactOptions(engine.isa));
  std::vector<std::shared_ptr<const AdapterVersion>> leases = {nullptr};
  std::vector<std::vector<GoldenPrompt>> goldens = {
      ReadGoldenPrompts(GoldenPath("models/" + model_name))};
  for (const std::string& name : GoldenNamesIn("adapters/" + model_name)) {
    const std::string path = GoldenPath("adapters/" + model_name + "/" + name);
    LoadAdapterSpec spec;
    spec.name = name;
    spec.path = path;
    spec.options = GoldenOptions(path);
    const StatusOr<LoadReport> report = test.adapters->Load(spec, nullptr);
    ASSERT_TRUE(report.ok()) << name << ": " << report.status();
    PrecisionBytes held;
    for (const OpReport& op : report->ops) held += op.bytes;
    EXPECT_EQ(held, report->resident_bytes) << name << ": an op's bytes are not told";
    leases.push_back(*test.adapters->Acquire(name, ""));
    goldens.push_back(ReadGoldenPrompts(path));
  }
  ASSERT_GE(leases.size(), 2u);

  StepHarness harness(*test.model, 2);
  std::vector<TestSequence> sequences;
  std::vector<const GoldenPrompt*> expected;
  for (size_t tenant = 0; tenant < leases.size(); ++tenant) {
    for (const GoldenPrompt& prompt : goldens[tenant]) {
      sequences.push_back(MakeSequence(prompt.tokens, leases[tenant]));
      expected.push_back(&prompt);
      EXPECT_EQ(
          harness.Greedy(prompt.tokens, leases[tenant], static_cast<int64_t>(prompt.greedy.size())),
          prompt.greedy);
    }
  }
  size_t begin = 0;
  while (begin < sequences.size()) {  // as many as the step's workspace takes
    std::vector<TestChunk> chunks;
    int64_t rows = 0;
    size_t end = begin;
    for (; end < sequences.size(); ++end) {
      const auto count = static_cast<int64_t>(sequences[end].tokens.size());
      if (rows + count > 512) break;
      chunks.push_back(
          {&sequences[end], count, static_cast<int64_t>(expected[end]->tokens.size())});
      rows += count;
    }
    const std::vector<std::vector<float>> logits = harness.Step(chunks);
    for (size_t i = begin; i < end; ++i) {
      ExpectClose(logits[i - begin], expected[i]->logits);
      EXPECT_EQ(harness.LogitsAlone(expected[i]->tokens, sequences[i].adapter), logits[i - begin])
          << "alone and mixed differ in their bits";
    }
    begin = end;
  }
}

INSTANTIATE_TEST_SUITE_P(Models, AdapterGolden,
                         testing::Combine(testing::ValuesIn(Engines()),
                                          testing::ValuesIn(GoldenNamesIn("adapters"))),
                         CaseName);

}  // namespace
}  // namespace polyad
