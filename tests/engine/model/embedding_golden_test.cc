// Embeddings against transformers' final hidden states (tests/golden/README.md), through the
// engine's own loop: alone, and in one batch with others and with requests that generate.
// covers: engine/runtime/hidden_pool.cc

#include <map>

#include "kernels/backend_factory.h"
#include "tests/engine/model/golden_files.h"
#include "tests/engine/model/loop_runner.h"
#include "tests/engine/model/step_harness.h"

namespace polyad {
namespace {

using Pooling = EmbeddingParams::Pooling;

constexpr int64_t kBlocks = 400;

// Adapters of one model; "" is none.
const std::map<std::string, std::vector<std::string>>& Cases() {
  static const auto& cases = *new std::map<std::string, std::vector<std::string>>{
      {"llama", {"", "plain", "ln_tuning", "prompt_tuning", "dora_all"}},
      {"qwen2", {""}},
      {"gpt2", {"", "ln_tuning"}},
      {"smollm2", {""}}};
  return cases;
}

struct Wanted {
  GoldenPrompt prompt;
  std::shared_ptr<const AdapterVersion> adapter;
  Pooling pooling;
  std::vector<float> expected;
  std::string what;
};

std::vector<Wanted> ReadCases(const std::string& model, TestModel& test) {
  auto file = SafetensorsFile::Open(GoldenPath("embeddings/goldens.safetensors"));
  POLYAD_CHECK(file.ok(), file.status().ToString().c_str());
  std::vector<Wanted> wanted;
  for (const std::string& adapter : Cases().at(model)) {
    const std::string name = adapter.empty() ? model : model + "/" + adapter;
    const std::string path = GoldenPath((adapter.empty() ? "models/" : "adapters/") + name);
    std::shared_ptr<const AdapterVersion> lease;
    if (!adapter.empty()) {
      LoadAdapterSpec spec;
      spec.name = adapter;
      spec.path = path;
      POLYAD_CHECK(test.adapters->Load(spec, nullptr).ok(), path.c_str());
      lease = *test.adapters->Acquire(adapter, "");
    }
    const std::vector<GoldenPrompt> prompts = ReadGoldenPrompts(path);
    for (const size_t i : {1u, 2u}) {
      for (const auto& [pooling, kind] :
           {std::pair(Pooling::kMean, ".mean"), std::pair(Pooling::kLast, ".last")}) {
        const std::string key = name + "." + std::to_string(i) + kind;
        wanted.push_back({prompts[i], lease, pooling, ReadGoldenTensor<float>(*file, key), key});
      }
    }
  }
  return wanted;
}

std::vector<float> EmbedAlone(Model& model, const Wanted& one, bool normalize) {
  LoopRunner runner(model, kBlocks);
  const int64_t number = runner.AddEmbedding(one.prompt, one.adapter, {one.pooling, normalize, 0});
  return runner.Run()[number].embedding;
}

class EmbeddingGolden : public testing::TestWithParam<std::pair<const char*, const char*>> {};

TEST_P(EmbeddingGolden, EmbeddingsAreTransformersHiddenStatesPooled) {
  const auto& [backend, model] = GetParam();
  TestModel test =
      LoadTestModel(GoldenPath(std::string("models/") + model), backend, ExactOptions());
  for (const Wanted& one : ReadCases(model, test)) {
    const std::vector<float> got = EmbedAlone(*test.model, one, false);
    ASSERT_EQ(got.size(), one.expected.size()) << one.what;
    EXPECT_LE(LogitError(got, one.expected), kGoldenTolerance) << one.what;
    double square = 0;
    for (const float value : EmbedAlone(*test.model, one, true)) square += double{value} * value;
    EXPECT_NEAR(square, 1.0, 1e-6) << one.what;
  }
}

INSTANTIATE_TEST_SUITE_P(Models, EmbeddingGolden,
                         testing::Values(std::pair("reference", "llama"), std::pair("cpu", "llama"),
                                         std::pair("cpu", "qwen2"), std::pair("cpu", "gpt2"),
                                         std::pair("cpu", "smollm2")));

// In steps of 64 tokens, which cut prompts into pieces, beside others that generate.
TEST(EmbeddingInvariance, CompanyAndChunksChangeNoBit) {
  for (const ComputeMode mode : {ComputeMode::kF32, ComputeMode::kBF16}) {
    BackendOptions options = ExactOptions();
    options.mode = mode;
    TestModel test = LoadTestModel(GoldenPath("models/llama"), "cpu", options);
    const std::vector<Wanted> wanted = ReadCases("llama", test);
    LoopRunner together(*test.model, kBlocks);
    std::vector<int64_t> numbers;
    for (const Wanted& one : wanted) {
      together.Add(one.prompt, one.adapter);
      numbers.push_back(together.AddEmbedding(one.prompt, one.adapter, {one.pooling, true, 0}));
    }
    auto answers = together.Run();
    for (size_t i = 0; i < wanted.size(); ++i) {
      EXPECT_EQ(answers[numbers[i]].embedding, EmbedAlone(*test.model, wanted[i], true))
          << wanted[i].what;
    }
  }
}

}  // namespace
}  // namespace polyad
