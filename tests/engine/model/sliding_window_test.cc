// A sequence whose every layer looks back over a window gives the blocks behind it back, and what
// it answers does not change by a bit: not with a pool that would not hold it whole beside its
// mates, preempted and computed again or swapped, or behind a soft prompt. Where one layer sees
// everything, everything stays.
#include <filesystem>
#include <fstream>

#include "engine/cache/spill_store.h"
#include "gtest/gtest.h"
#include "tests/engine/model/golden_files.h"
#include "tests/engine/model/loop_runner.h"
#include "tests/engine/model/step_harness.h"

namespace polyad {
namespace {

constexpr int64_t kWindow = 8;  // the golden model's
constexpr int64_t kOutput = 80;
constexpr int64_t kManyBlocks = 100;
// A window of 8 tokens and the next one lie in two blocks.
constexpr int64_t kBlocksOfOne = 2;
// Room for the longest of a crowd, whole, as it comes back, and too little for all their windows.
constexpr int64_t kFewBlocks = 8;

GoldenPrompt PromptOf(int64_t num_tokens, int32_t first) {
  GoldenPrompt prompt;
  for (int64_t i = 0; i < num_tokens; ++i) {
    prompt.tokens.push_back(3 + (first * 31 + static_cast<int32_t>(i) * 7) % 250);
  }
  prompt.greedy.resize(kOutput);  // LoopRunner asks for as many
  return prompt;
}

Answer AnswerOf(LoopRunner& loop, const GoldenPrompt& prompt,
                const std::shared_ptr<const AdapterVersion>& adapter) {
  const int64_t number = loop.Add(prompt, adapter);
  return loop.Run()[number];
}

class SlidingWindowTest : public testing::Test {
 protected:
  SlidingWindowTest() : test_(LoadTestModel(GoldenPath("models/mistral"), "cpu", ExactOptions())) {}

  // What the prompt gets alone, with every block kept.
  Answer Kept(const GoldenPrompt& prompt,
              const std::shared_ptr<const AdapterVersion>& adapter = nullptr) {
    LoopRunner loop(*test_.model, {kManyBlocks, nullptr, /*keeps_all=*/true});
    return AnswerOf(loop, prompt, adapter);
  }
  // Eight prompts of different lengths at once answer as alone.
  void ExpectSameInCrowd(LoopRunner& crowd) {
    std::map<int64_t, Answer> expected;
    for (int32_t i = 0; i < 8; ++i) {
      const GoldenPrompt prompt = PromptOf(15 + 2 * (i % 4), i);
      expected[crowd.Add(prompt, nullptr)] = Kept(prompt);
    }
    EXPECT_EQ(crowd.Run(), expected);
    EXPECT_EQ(crowd.num_held_blocks(), 0);
  }

  TestModel test_;
};

TEST_F(SlidingWindowTest, ASequenceHoldsItsWindowAndNoMore) {
  ASSERT_EQ(test_.model->sliding_window(), kWindow);
  const GoldenPrompt prompt = PromptOf(20, 1);
  LoopRunner whole(*test_.model, {kManyBlocks, nullptr, /*keeps_all=*/true});
  const Answer expected = AnswerOf(whole, prompt, nullptr);
  EXPECT_EQ(whole.most_held_blocks(), 7);  // a hundred tokens
  LoopRunner loop(*test_.model, kManyBlocks);
  EXPECT_EQ(AnswerOf(loop, prompt, nullptr), expected);
  EXPECT_EQ(loop.most_held_blocks(), kBlocksOfOne);
  EXPECT_EQ(loop.num_held_blocks(), 0);
}

TEST_F(SlidingWindowTest, MoreSequencesFitThanWholeOnesWould) {
  LoopRunner crowd(*test_.model, 16);  // whole, two of the eight would fit
  ExpectSameInCrowd(crowd);
  EXPECT_EQ(crowd.num_preemptions(), 0);
}

TEST_F(SlidingWindowTest, ThePreemptedComeBackWithTheSameBits) {
  LoopRunner recomputed(*test_.model, kFewBlocks);
  ExpectSameInCrowd(recomputed);
  EXPECT_GT(recomputed.num_preemptions(), 0);

  SpillStore::Options options;
  options.block_bytes = test_.model->kv_block_bytes();
  options.num_memory_blocks = 100;
  const auto spill = *SpillStore::Create(options);
  LoopRunner swapped(*test_.model, {kFewBlocks, spill.get()});
  ExpectSameInCrowd(swapped);
  EXPECT_GT(swapped.num_preemptions(), 0);
  EXPECT_GT(swapped.num_restored_blocks(), 0);
}

TEST_F(SlidingWindowTest, SoftPromptsSlideOutToo) {
  for (const char* name : {"prompt_tuning_slides_out", "prefix_tuning_slides_out"}) {
    SCOPED_TRACE(name);
    LoadAdapterSpec spec;
    spec.name = name;
    spec.path = GoldenPath("adapters/mistral/" + std::string(name));
    ASSERT_TRUE(test_.adapters->Load(spec, nullptr).ok());
    const auto adapter = *test_.adapters->Acquire(name, "");
    LoopRunner loop(*test_.model, kManyBlocks);
    const GoldenPrompt prompt = PromptOf(10, 3);
    EXPECT_EQ(AnswerOf(loop, prompt, adapter), Kept(prompt, adapter));
    EXPECT_LE(loop.most_held_blocks(), kBlocksOfOne);
  }
}

// A first pass has a cache of its own, whose window slides with the other's.
TEST_F(SlidingWindowTest, BothCachesOfAnAdapterSlide) {
  LoadAdapterSpec spec;
  spec.name = "xlora";
  spec.path = GoldenPath("adapters/mistral/xlora_deep");
  ASSERT_TRUE(test_.adapters->Load(spec, nullptr).ok());
  const auto adapter = *test_.adapters->Acquire("xlora", "");
  ASSERT_EQ(adapter->num_caches(), 2);
  LoopRunner loop(*test_.model, kManyBlocks);
  const GoldenPrompt prompt = PromptOf(20, 5);
  EXPECT_EQ(AnswerOf(loop, prompt, adapter), Kept(prompt, adapter));
  EXPECT_EQ(loop.most_held_blocks(), 2 * kBlocksOfOne);
}

TEST(MixedWindows, ALayerThatSeesEverythingKeepsEverything) {
  namespace fs = std::filesystem;
  const fs::path directory = fs::path(testing::TempDir()) / "mixed_windows";
  fs::remove_all(directory);
  fs::copy(GoldenPath("models/qwen2"), directory);
  std::ifstream file(directory / "config.json");
  std::string config((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const auto replace = [&](const std::string& from, const std::string& to) {
    const size_t at = config.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    config.replace(at, from.size(), to);
  };
  replace("\"use_sliding_window\": false", "\"use_sliding_window\": true");
  replace("\"sliding_window\": null", "\"sliding_window\": 8");
  replace("\"max_window_layers\": 2", "\"max_window_layers\": 1");
  fs::permissions(directory / "config.json", fs::perms::owner_write, fs::perm_options::add);
  std::ofstream(directory / "config.json") << config;
  TestModel test = LoadTestModel(directory.string(), "cpu", ExactOptions());
  ASSERT_EQ(test.model->spec().sliding_window, (std::vector<int64_t>{0, 8}));
  EXPECT_EQ(test.model->sliding_window(), 0);
  LoopRunner loop(*test.model, kManyBlocks);
  EXPECT_EQ(AnswerOf(loop, PromptOf(20, 1), nullptr).tokens.size(), static_cast<size_t>(kOutput));
  EXPECT_EQ(loop.most_held_blocks(), 7);
}

}  // namespace
}  // namespace polyad
