#include "engine/adapters/model_delta.h"

#include <fstream>
#include <iterator>

#include "gtest/gtest.h"
#include "tests/engine/adapters/model_edits.h"
#include "tests/engine/io/file_builders.h"

// Two models as one change: what counts as changed, and which pairs are refused.

namespace polyad {
namespace {

void Keep(const std::string&, std::vector<float>&) {}

TEST(ModelDelta, TheChangeIsTheDifferenceAndTheRestIsUntouched) {
  const TemporaryDirectory directory;
  const std::string path = directory.path() + "/fine";
  WriteEdited(GoldenModel("llama"), path, [](const std::string& name, std::vector<float>& values) {
    if (name == "model.layers.1.mlp.up_proj.weight") values[70] += 0.5f;
  });
  const auto models = ModelDelta::Open(GoldenModel("llama"), path);
  ASSERT_TRUE(models.ok()) << models.status();
  for (const WeightEntry& entry : models->base().weights()) {
    const auto pair = models->Read(entry.layer, entry.kind);
    ASSERT_TRUE(pair.ok()) << pair.status();
    for (int64_t row = 0; row < pair->rows(); ++row) {
      const bool edited = entry.layer == 1 && entry.kind == WeightKind::kUp && row == 70 / 64;
      EXPECT_EQ(pair->IsChanged(row), edited) << entry.tensor_name << " row " << row;
      if (!edited) continue;
      std::vector<float> change(static_cast<size_t>(pair->cols()));
      pair->Change(row, change.data());
      EXPECT_NEAR(change[70 % 64], 0.5f, 1e-6f);
    }
  }
}

// A GGUF's blocks against a directory of the values they stand for.
TEST(ModelDelta, AQuantisedBaseIsTakenAsItIsServed) {
  const TemporaryDirectory directory;
  const std::string gguf = GoldenModel("llama_gguf_q4_1") + "/model.gguf";
  const auto base = OpenModel(gguf);
  ASSERT_TRUE(base.ok()) << base.status();
  const std::string path = directory.path() + "/fine";
  WriteEdited(GoldenModel("llama"), path, Keep);
  const auto models = ModelDelta::Open(gguf, path);
  ASSERT_TRUE(models.ok()) << models.status();
  const auto pair = models->Read(0, WeightKind::kQ);
  ASSERT_TRUE(pair.ok()) << pair.status();
  const auto served = *ToFloats(*base->ReadWeight(0, WeightKind::kQ));
  std::vector<float> change(static_cast<size_t>(pair->cols()));
  std::vector<float> fine(change.size());
  pair->Change(3, change.data());
  pair->FineTuned(3, fine.data());
  for (size_t i = 0; i < fine.size(); ++i) {
    EXPECT_EQ(change[i], fine[i] - served[3 * fine.size() + i]);
  }
}

struct Mismatch {
  const char* base;
  const char* from;  // of the fine-tune's config.json
  const char* to;
  const char* culprit;
};

TEST(ModelDelta, AnotherModelIsRefusedByName) {
  const Mismatch cases[] = {
      {"qwen2", "", "", "expected"},
      {"llama3", "", "", "expected"},
      {"llama", "\"rms_norm_eps\": 1e-05", "\"rms_norm_eps\": 1e-06", "norm epsilon"},
      {"llama", "\"rope_theta\": 10000.0", "\"rope_theta\": 20000.0", "rotary"},
      {"llama", "\"num_attention_heads\": 4", "\"num_attention_heads\": 8", "expected"}};
  for (const Mismatch& mismatch : cases) {
    const TemporaryDirectory directory;
    const std::string path = directory.path() + "/fine";
    WriteEdited(GoldenModel("llama"), path, Keep);
    std::ifstream file(path + "/config.json");
    std::string config((std::istreambuf_iterator<char>(file)), {});
    const std::string from = mismatch.from;
    if (!from.empty()) {
      ASSERT_NE(config.find(from), std::string::npos) << from;
      config.replace(config.find(from), from.size(), mismatch.to);
      std::ofstream(path + "/config.json") << config;
    }
    const auto models = ModelDelta::Open(GoldenModel(mismatch.base), path);
    ASSERT_FALSE(models.ok()) << mismatch.base;
    EXPECT_NE(models.status().message().find(mismatch.culprit), absl::string_view::npos)
        << models.status();
  }
}

}  // namespace
}  // namespace polyad
