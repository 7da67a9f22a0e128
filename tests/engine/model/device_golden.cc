#include "tests/engine/model/device_golden.h"

#include <cmath>
#include <filesystem>
#include <utility>

#include "gtest/gtest.h"
#include "kernels/api/kv_codes.h"

namespace polyad {
namespace {

constexpr int64_t kMaxRows = 512;  // of a step

// Numbers that bf16 rounds one after the other on the way to a logit, half a unit each at most: of
// a layer two norms, four weights, the keys and values, attention's output and the activation, and
// of an adapter the two factors and the row between them at two sites; then the head and its norm.
double RoundingBound(int64_t num_layers) {
  constexpr double kHalfUnit = 0x1p-9;
  return static_cast<double>(15 * num_layers + 2) * kHalfUnit;
}

// K/V as codes are steps apart: numbers that a half unit parts fall to different codes once in
// step / half unit times, so the root mean square of what that makes is the root of the product. A
// group of 64 normal numbers is 5 deviations wide; k and v of each layer.
double CodeBound(int64_t num_layers, KvFormat format) {
  if (!IsCoded(format)) return 0;
  constexpr double kHalfUnit = 0x1p-9;
  const double step = 5.0 / static_cast<double>(TopCodeOf(format, KvPart::kValue));
  return 2 * static_cast<double>(num_layers) * std::sqrt(kHalfUnit * step);
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

}  // namespace

DeviceModel::DeviceModel(const std::string& name, std::unique_ptr<Backend> backend,
                         KvFormat kv_format)
    : test_(LoadTestModel(GoldenModelFile(name), std::move(backend), 16 << 20, kv_format)) {
  Add(nullptr, GoldenPath("models/" + name));
  if (!std::filesystem::exists(GoldenPath("adapters/" + name))) return;
  for (const std::string& adapter : GoldenNamesIn("adapters/" + name)) {
    const std::string path = GoldenPath("adapters/" + name + "/" + adapter);
    LoadAdapterSpec spec;
    spec.name = adapter;
    spec.path = path;
    spec.options = GoldenOptions(path);
    const StatusOr<LoadReport> report = test_.adapters->Load(spec, nullptr);
    EXPECT_TRUE(report.ok()) << adapter << ": " << report.status();
    if (report.ok()) Add(*test_.adapters->Acquire(adapter, ""), path);
  }
}

void DeviceModel::Add(std::shared_ptr<const AdapterVersion> adapter, const std::string& path) {
  names_.push_back(std::filesystem::path(path).filename().string());
  prompts_.push_back(ReadGoldenPrompts(path)[0]);
  sequences_.push_back(MakeSequence(prompts_.back().tokens, std::move(adapter)));
}

std::vector<std::vector<float>> DeviceModel::Logits() {
  StepHarness harness(*test_.model, 3);
  std::vector<std::vector<float>> logits;
  for (size_t begin = 0; begin < sequences_.size();) {
    std::vector<TestChunk> chunks;
    int64_t rows = 0;
    for (size_t i = begin; i < sequences_.size(); ++i) {
      const auto count = static_cast<int64_t>(sequences_[i].tokens.size());
      if (rows + count > kMaxRows) break;
      rows += count;
      chunks.push_back({&sequences_[i], count, static_cast<int64_t>(prompts_[i].tokens.size())});
    }
    for (std::vector<float>& own : harness.Step(chunks)) logits.push_back(std::move(own));
    begin += chunks.size();
  }
  return logits;
}

void DeviceModel::ExpectGoldenLogits() {
  const std::vector<std::vector<float>> logits = Logits();
  ASSERT_EQ(logits.size(), names_.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    EXPECT_LE(LogitError(logits[i], prompts_[i].logits), kGoldenTolerance) << names_[i];
  }
}

void DeviceModel::ExpectGoldenLogitsUpToRounding() {
  const std::vector<std::vector<float>> logits = Logits();
  ASSERT_EQ(logits.size(), names_.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    EXPECT_LE(RelativeError(logits[i], prompts_[i].logits),
              RoundingBound(test_.files->spec().num_layers))
        << names_[i];
  }
}

void DeviceModel::ExpectLogitsOf(DeviceModel& other) {
  const std::vector<std::vector<float>> logits = Logits();
  const std::vector<std::vector<float>> expected = other.Logits();
  ASSERT_EQ(logits.size(), names_.size());
  ASSERT_EQ(expected.size(), names_.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    const int64_t num_layers = test_.files->spec().num_layers;
    EXPECT_LE(RelativeError(logits[i], expected[i]),
              RoundingBound(num_layers) + CodeBound(num_layers, test_.model->kv_format()))
        << names_[i];
  }
}

void DeviceModel::ExpectBitsOf(DeviceModel& other) {
  const std::vector<std::vector<float>> logits = Logits();
  const std::vector<std::vector<float>> expected = other.Logits();
  ASSERT_EQ(logits.size(), names_.size());
  ASSERT_EQ(expected.size(), names_.size());
  for (size_t i = 0; i < logits.size(); ++i) EXPECT_EQ(logits[i], expected[i]) << names_[i];
}

std::vector<std::string> ArchitectureNames() {
  return {"gpt2", "llama", "llama3", "mistral", "qwen2", "qwen3"};
}

}  // namespace polyad
