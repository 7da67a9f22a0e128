#include "tests/engine/model/decoding.h"

#include <cstring>
#include <filesystem>
#include <utility>

#include "gtest/gtest.h"
#include "tests/engine/model/golden_files.h"

namespace polyad {
namespace {

constexpr int64_t kPrefilled = 5;  // tokens of each sequence

void Append(std::vector<std::vector<float>> logits, std::vector<std::vector<float>>& to) {
  for (std::vector<float>& own : logits) to.push_back(std::move(own));
}

}  // namespace

Decoding::Decoding(const std::string& name, std::unique_ptr<Backend> backend)
    : test_(LoadTestModel(GoldenModelFile(name), std::move(backend))), harness_(*test_.model, 3) {
  const GoldenPrompt prompt = ReadGoldenPrompts(GoldenPath("models/" + name))[0];
  Add(prompt.tokens, nullptr);
  if (!std::filesystem::exists(GoldenPath("adapters/" + name))) return;
  for (const std::string& adapter : GoldenNamesIn("adapters/" + name)) {
    if (static_cast<int64_t>(sequences_.size()) == kMostSequences) break;
    LoadAdapterSpec spec;
    spec.name = adapter;
    spec.path = GoldenPath("adapters/" + name + "/" + adapter);
    spec.options = GoldenOptions(spec.path);
    const StatusOr<LoadReport> report = test_.adapters->Load(spec, nullptr);
    EXPECT_TRUE(report.ok()) << adapter << ": " << report.status();
    Add(prompt.tokens, *test_.adapters->Acquire(adapter, ""));
  }
}

// Few tokens of the prompt, and those that are decoded.
void Decoding::Add(std::vector<int32_t> tokens, std::shared_ptr<const AdapterVersion> adapter) {
  tokens.resize(static_cast<size_t>(kPrefilled + kSteps), 7);
  sequences_.push_back(MakeSequence(tokens, std::move(adapter)));
}

std::vector<std::vector<float>> Decoding::Run(size_t count) {
  std::vector<std::vector<float>> all;
  std::vector<TestSequence> sequences(sequences_.begin(),
                                      sequences_.begin() + static_cast<std::ptrdiff_t>(count));
  for (TestSequence& sequence : sequences) {
    const auto given = static_cast<int64_t>(sequence.tokens.size()) - kSteps;
    Append(harness_.Step({{&sequence, given, 1}}), all);
  }
  for (int step = 0; step < kSteps; ++step) {
    std::vector<TestChunk> chunks;
    for (TestSequence& sequence : sequences) chunks.push_back({&sequence, 1, 1});
    Append(harness_.Step(chunks), all);
    if (step == kSteps / 2) harness_.SpillAndRestore(sequences[0]);
  }
  for (TestSequence& sequence : sequences) harness_.Release(sequence);
  return all;
}

void ExpectSameBits(const std::vector<std::vector<float>>& got,
                    const std::vector<std::vector<float>>& want) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_EQ(got[i].size(), want[i].size());
    EXPECT_EQ(std::memcmp(got[i].data(), want[i].data(), got[i].size() * sizeof(float)), 0) << i;
  }
}

}  // namespace polyad
