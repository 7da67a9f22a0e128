// A sequence that is stopped for want of blocks and goes on later answers with the bits of one that
// was never stopped, whether its blocks were swapped out and copied back or computed again: tokens
// and log probabilities, of the base and of adapters, in both precisions and with K/V as codes.
#include "engine/cache/spill_store.h"
#include "gtest/gtest.h"
#include "tests/engine/model/loop_runner.h"
#include "tests/engine/model/step_harness.h"

namespace polyad {
namespace {

constexpr int64_t kPromptTokens = 24;
constexpr int64_t kOutputTokens = 60;
constexpr int64_t kFewBlocks = 14;  // two of these sequences and a bit; the runner runs eight

GoldenPrompt PromptOf(int32_t first) {
  GoldenPrompt prompt;
  for (int32_t i = 0; i < kPromptTokens + 3 * first; ++i) {
    prompt.tokens.push_back(3 + (first * 31 + i * 7) % 250);
  }
  prompt.greedy.resize(kOutputTokens);  // LoopRunner asks for as many
  return prompt;
}

std::unique_ptr<SpillStore> MakeSpill(const Model& model, int64_t memory, int64_t file) {
  SpillStore::Options options;
  options.block_bytes = model.kv_block_bytes();
  options.num_memory_blocks = memory;
  options.num_file_blocks = file;
  options.directory = testing::TempDir();
  StatusOr<std::unique_ptr<SpillStore>> spill = SpillStore::Create(options);
  EXPECT_TRUE(spill.ok()) << spill.status();
  return *std::move(spill);
}

struct Numbers {
  ComputeMode mode;
  KvFormat kv_format;
};

class SwapInvarianceTest : public testing::TestWithParam<Numbers> {
 protected:
  SwapInvarianceTest() {
    BackendOptions options = ExactOptions();
    options.mode = GetParam().mode;
    test_ =
        LoadTestModel(GoldenPath("models/llama"), "cpu", options, 16 << 20, GetParam().kv_format);
    adapters_.push_back(nullptr);
    for (const char* name : {"plain", "prefix_tuning", "ia3_default"}) {
      LoadAdapterSpec spec;
      spec.name = name;
      spec.path = GoldenPath(std::string("adapters/llama/") + name);
      EXPECT_TRUE(test_.adapters->Load(spec, nullptr).ok()) << name;
      adapters_.push_back(*test_.adapters->Acquire(name, ""));
    }
  }

  // Two requests of each, by number: the same numbers from each runner.
  std::map<int64_t, Answer> RunAll(LoopRunner& loop) {
    for (int32_t i = 0; i < 2; ++i) {
      for (size_t a = 0; a < adapters_.size(); ++a) {
        loop.Add(PromptOf(i + 2 * static_cast<int32_t>(a)), adapters_[a]);
      }
    }
    std::map<int64_t, Answer> answers = loop.Run();
    EXPECT_EQ(loop.num_held_blocks(), 0);
    return answers;
  }

  TestModel test_;
  std::vector<std::shared_ptr<const AdapterVersion>> adapters_;
};

TEST_P(SwapInvarianceTest, SwappedRecomputedOrNeverStoppedTheBitsAreTheSame) {
  LoopRunner roomy(*test_.model, 100);
  const std::map<int64_t, Answer> expected = RunAll(roomy);
  ASSERT_EQ(expected.size(), 2 * adapters_.size());
  for (const auto& [number, answer] : expected) {
    EXPECT_EQ(answer.tokens.size(), static_cast<size_t>(kOutputTokens));
  }
  EXPECT_EQ(roomy.num_preemptions(), 0);

  LoopRunner recomputed(*test_.model, kFewBlocks);
  EXPECT_EQ(RunAll(recomputed), expected);
  EXPECT_GT(recomputed.num_preemptions(), 2);

  const auto memory = MakeSpill(*test_.model, 100, 0);
  LoopRunner swapped(*test_.model, {kFewBlocks, memory.get()});
  EXPECT_EQ(RunAll(swapped), expected);
  EXPECT_GT(swapped.num_preemptions(), 2);
  EXPECT_GT(swapped.num_restored_blocks(), 2);

  const auto file = MakeSpill(*test_.model, 1, 100);
  LoopRunner through_file(*test_.model, {kFewBlocks, file.get()});
  EXPECT_EQ(RunAll(through_file), expected);
  EXPECT_GT(through_file.num_restored_blocks(), 2);
  EXPECT_GT(file->num_in_file(), 2);

  const auto small = MakeSpill(*test_.model, 3, 0);  // some blocks come back, others do not
  LoopRunner mixed(*test_.model, {kFewBlocks, small.get()});
  EXPECT_EQ(RunAll(mixed), expected);
  EXPECT_GT(mixed.num_preemptions(), 2);
}

INSTANTIATE_TEST_SUITE_P(Modes, SwapInvarianceTest,
                         testing::Values(Numbers{ComputeMode::kF32, KvFormat::kAuto},
                                         Numbers{ComputeMode::kBF16, KvFormat::kAuto},
                                         Numbers{ComputeMode::kBF16, KvFormat::kInt8},
                                         Numbers{ComputeMode::kBF16, KvFormat::kInt4}));

}  // namespace
}  // namespace polyad
