// A compressed fine-tune through the loader and the decoder: its logits are those of a dense model
// of the base plus what the planes stand for, and its rows give the same bits alone and among other
// tenants.
#include <algorithm>
#include <cmath>

#include "engine/adapters/compress_model.h"
#include "gtest/gtest.h"
#include "kernels/backend_factory.h"
#include "tests/engine/adapters/model_edits.h"
#include "tests/engine/io/file_builders.h"
#include "tests/engine/model/golden_files.h"
#include "tests/engine/model/step_harness.h"

namespace polyad {
namespace {

// +1 and -1 without a pattern, another one for every tensor.
float Sign(const std::string& name, size_t i, uint64_t plane) {
  uint64_t hash = i * 0x9e3779b97f4a7c15u + plane;
  for (const char c : name) hash = (hash ^ static_cast<uint64_t>(c)) * 0x100000001b3u;
  return (hash >> 40) % 2 == 0 ? 1.0f : -1.0f;
}

// Two planes' worth of change in every matrix, and norms, which one container carries exactly.
void FineTune(const std::string& name, std::vector<float>& values) {
  const bool matrix = name.find("_proj.weight") != std::string::npos ||
                      name.find("attn.c_") != std::string::npos ||
                      name.find("mlp.c_") != std::string::npos;
  if (matrix && name.ends_with("weight")) {
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] += 0.04f * Sign(name, i, 1) + 0.015f * Sign(name, i, 2);
    }
  }
  if (name.ends_with("norm.weight") || name.ends_with("ln_f.bias")) {
    for (float& value : values) value += 0.1f;
  }
}

class CompressedAdapter : public testing::TestWithParam<const char*> {};

TEST_P(CompressedAdapter, LogitsAreTheDenseModelsAndBitsDoNotDependOnTheBatch) {
  const TemporaryDirectory directory;
  const std::string base = GoldenModel(GetParam());
  const std::string fine_tuned = directory.path() + "/fine";
  WriteEdited(base, fine_tuned, FineTune);
  CompressOptions options;
  options.out = directory.path() + "/compressed";
  options.planes = {2, PlaneScale::kTensor, 128};
  {
    const auto models = ModelDelta::Open(base, fine_tuned);
    ASSERT_TRUE(models.ok()) << models.status();
    const auto report = CompressModel(*models, options, nullptr);
    ASSERT_TRUE(report.ok()) << report.status();
  }
  TestModel dense = LoadTestModel(fine_tuned, "cpu", ExactOptions());
  TestModel test = LoadTestModel(base, "cpu", ExactOptions());
  const std::string lora = GoldenPath("adapters/") + GetParam() + "/plain";
  const auto load = [&test](const std::string& name, const std::string& path) {
    LoadAdapterSpec spec;
    spec.name = name;
    spec.path = path;
    const auto report = test.adapters->Load(spec, nullptr);
    EXPECT_TRUE(report.ok()) << report.status();
  };
  load("compressed", options.out);
  load("lora", GoldenPath("adapters/") + GetParam() + "/plain");
  const auto compressed = *test.adapters->Acquire("compressed", "");
  const auto plain = *test.adapters->Acquire("lora", "");
  StepHarness harness(*test.model, 1);
  StepHarness oracle(*dense.model, 2);
  std::vector<TestSequence> sequences;
  std::vector<std::vector<float>> alone;
  for (const GoldenPrompt& prompt : ReadGoldenPrompts(base)) {
    const auto logits = harness.LogitsAlone(prompt.tokens, compressed);
    const auto expected = oracle.LogitsAlone(prompt.tokens, nullptr);
    EXPECT_LE(LogitError(logits, expected), kGoldenTolerance);
    EXPECT_GT(LogitError(harness.LogitsAlone(prompt.tokens, nullptr), expected),
              10 * kGoldenTolerance);
    for (const auto& adapter : {compressed, plain, std::shared_ptr<const AdapterVersion>()}) {
      sequences.push_back(MakeSequence(prompt.tokens, adapter));
      alone.push_back(harness.LogitsAlone(prompt.tokens, adapter));
    }
  }
  std::vector<TestChunk> chunks;
  for (TestSequence& sequence : sequences) {
    const auto count = static_cast<int64_t>(sequence.tokens.size());
    chunks.push_back({&sequence, count, count});
  }
  const auto mixed = harness.Step(chunks);
  for (size_t i = 0; i < mixed.size(); ++i) EXPECT_EQ(mixed[i], alone[i]) << i;
}

INSTANTIATE_TEST_SUITE_P(Models, CompressedAdapter, testing::Values("llama", "qwen3", "gpt2"));

}  // namespace
}  // namespace polyad
