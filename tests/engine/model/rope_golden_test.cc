// Rotary scalings against transformers (tests/golden/rope), at up to four times the original
// length: tiny models whose config.json is edited, in the exact mode. And what a sequence's
// rotation must not depend on: chunks, mates, prefixes, and who else is scaled otherwise.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "engine/io/json.h"
#include "gtest/gtest.h"
#include "tests/engine/model/golden_files.h"
#include "tests/engine/model/step_harness.h"

namespace polyad {
namespace {

std::string ReadText(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

Json ReadVariants() {
  const StatusOr<Json> golden =
      ParseJson(ReadText(GoldenPath("rope/golden.json")), "golden.json", JsonLimits{});
  POLYAD_CHECK(golden.ok(), "golden.json");
  return (*golden)["variants"];
}

std::vector<std::string> VariantNames() {
  std::vector<std::string> names;
  const Json variants = ReadVariants();
  for (auto variant = variants.begin(); variant != variants.end(); ++variant) {
    names.push_back(variant.key());
  }
  return names;
}

// The variant's model in a directory of its own: a golden's weights, its config.json edited.
class VariantModel {
 public:
  VariantModel(const std::string& name, const std::string& backend)
      : path_(testing::TempDir() + "polyad_rope_" + name + "_" + backend) {
    const Json variant = ReadVariants()[name];
    const std::string base = GoldenPath("models/" + variant["model"].get<std::string>());
    std::filesystem::remove_all(path_);
    std::filesystem::create_directories(path_);
    for (const char* file : {"model.safetensors", "tokenizer.json", "tokenizer_config.json"}) {
      if (!std::filesystem::exists(base + "/" + file)) continue;
      std::filesystem::copy_file(base + "/" + file, path_ + "/" + file);
    }
    StatusOr<Json> config = ParseJson(ReadText(base + "/config.json"), "config.json", JsonLimits{});
    POLYAD_CHECK(config.ok(), "config.json");
    config->update(variant["config"]);
    std::ofstream(path_ + "/config.json") << config->dump();
    model = LoadTestModel(path_, backend, ExactOptions());
  }
  ~VariantModel() { std::filesystem::remove_all(path_); }

  TestModel model;

 private:
  const std::string path_;
};

struct Prompt {
  std::vector<int32_t> tokens;
  std::vector<float> logits;
};

std::vector<Prompt> PromptsOf(const std::string& name) {
  const StatusOr<SafetensorsFile> file =
      SafetensorsFile::Open(GoldenPath("rope/goldens.safetensors"));
  POLYAD_CHECK(file.ok(), "rope/goldens.safetensors");
  std::vector<Prompt> prompts;
  for (int i = 0; file->Find(name + "." + std::to_string(i) + ".tokens") != nullptr; ++i) {
    const std::string prefix = name + "." + std::to_string(i);
    prompts.push_back({ReadGoldenTensor<int32_t>(*file, prefix + ".tokens"),
                       ReadGoldenTensor<float>(*file, prefix + ".logits")});
  }
  POLYAD_CHECK(!prompts.empty(), "a variant has prompts");
  return prompts;
}

// The last rows of a sequence that runs in chunks of `chunk` tokens.
std::vector<float> InChunks(StepHarness& harness, const std::vector<int32_t>& tokens, int64_t chunk,
                            int64_t num_logits) {
  TestSequence sequence = MakeSequence(tokens, nullptr);
  std::vector<float> logits;
  const auto end = static_cast<int64_t>(tokens.size());
  while (sequence.num_computed < end) {
    const int64_t count = std::min(chunk, end - sequence.num_computed);
    const int64_t scored_begin = std::max(sequence.num_computed, end - num_logits);
    const int64_t scored = std::max<int64_t>(0, sequence.num_computed + count - scored_begin);
    const std::vector<float> rows = harness.Step({{&sequence, count, scored}})[0];
    logits.insert(logits.end(), rows.begin(), rows.end());
  }
  harness.Release(sequence);
  return logits;
}

using Case = std::tuple<std::string, std::string>;
class RopeGolden : public testing::TestWithParam<Case> {};

TEST_P(RopeGolden, LogitsAreTransformersAtFourTimesTheOriginalLength) {
  const auto& [backend, name] = GetParam();
  VariantModel variant(name, backend);
  StepHarness harness(*variant.model.model, 1);
  for (const Prompt& prompt : PromptsOf(name)) {
    SCOPED_TRACE(prompt.tokens.size());
    EXPECT_LE(LogitError(harness.LogitsAlone(prompt.tokens, nullptr), prompt.logits),
              kGoldenTolerance);
  }
}

TEST_P(RopeGolden, ChunksAndMatesOfOtherLengthsChangeNoBit) {
  const auto& [backend, name] = GetParam();
  VariantModel variant(name, backend);
  StepHarness harness(*variant.model.model, 2);
  const std::vector<Prompt> prompts = PromptsOf(name);
  std::vector<TestSequence> sequences;
  std::vector<TestChunk> chunks;
  for (const Prompt& prompt : prompts) sequences.push_back(MakeSequence(prompt.tokens, nullptr));
  for (TestSequence& sequence : sequences) {
    chunks.push_back({&sequence, static_cast<int64_t>(sequence.tokens.size()), 2});
  }
  const std::vector<std::vector<float>> mixed = harness.Step(chunks);
  for (TestSequence& sequence : sequences) harness.Release(sequence);
  for (size_t i = 0; i < prompts.size(); ++i) {
    SCOPED_TRACE(prompts[i].tokens.size());
    EXPECT_EQ(InChunks(harness, prompts[i].tokens, 1000, 2), mixed[i]);
    EXPECT_EQ(InChunks(harness, prompts[i].tokens, 7, 2), mixed[i]);
    EXPECT_EQ(InChunks(harness, prompts[i].tokens, 1, 2), mixed[i]);
  }
}

std::string CaseName(const testing::TestParamInfo<Case>& of) {
  return std::get<0>(of.param) + "_" + std::get<1>(of.param);
}

INSTANTIATE_TEST_SUITE_P(Variants, RopeGolden,
                         testing::Combine(testing::Values("cpu", "reference"),
                                          testing::ValuesIn(VariantNames())),
                         CaseName);

// Two lengths that one context passes on its way: what it is to become decides from its first
// token.
TEST(RopeOfASequenceTest, ASequenceTurnsByWhatItMayBecome) {
  VariantModel variant("longrope", "cpu");
  StepHarness harness(*variant.model.model, 1);
  std::vector<int32_t> tokens;
  for (int32_t i = 0; i < 30; ++i) tokens.push_back(3 + i * 37 % 250);
  const std::vector<float> stays = harness.LogitsAlone(tokens, nullptr);
  TestSequence sequence = MakeSequence(tokens, nullptr);
  sequence.reach = 33;  // one more than the original length
  const std::vector<float> grows = harness.Step({{&sequence, 30, 30}})[0];
  EXPECT_GT(LogitError(grows, stays), 10 * kGoldenTolerance);
  for (const int32_t next : {5, 6, 7}) sequence.tokens.push_back(next);
  const std::vector<float> later = harness.Step({{&sequence, 3, 3}})[0];
  const std::vector<float> whole = harness.LogitsAlone(sequence.tokens, nullptr);
  ASSERT_GE(whole.size(), later.size());
  EXPECT_EQ(std::vector<float>(whole.end() - static_cast<int64_t>(later.size()), whole.end()),
            later);
}

}  // namespace
}  // namespace polyad
