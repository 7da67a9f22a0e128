// K/V whose memory comes and goes by the page, placed by block, while adapters take and give pages
// at every step: the same bits as with memory of its own, tokens and log probabilities, of the base
// and of adapters, in both precisions and with K/V as codes.
#include <functional>
#include <optional>
#include <random>
#include <utility>

#include "engine/cache/spill_store.h"
#include "gtest/gtest.h"
#include "tests/engine/model/forwarding_runner.h"
#include "tests/engine/model/loop_runner.h"
#include "tests/engine/model/step_harness.h"

namespace polyad {
namespace {

constexpr int64_t kPromptTokens = 24;
constexpr int64_t kOutputTokens = 60;
constexpr int64_t kNumBlocks = 100;
// Four blocks to a page; the first three pages have room for the longest of the requests.
constexpr BlockPages::Layout kLayout{MemoryLedger::kPageBytes / 4, MemoryLedger::kPageBytes, 3};
constexpr int64_t kNumPages = kNumBlocks / 4;

GoldenPrompt PromptOf(int32_t first) {
  GoldenPrompt prompt;
  for (int32_t i = 0; i < kPromptTokens + 3 * first; ++i) {
    prompt.tokens.push_back(3 + (first * 31 + i * 7) % 250);
  }
  prompt.greedy.resize(kOutputTokens);  // LoopRunner asks for as many
  return prompt;
}

struct Numbers {
  ComputeMode mode;
  KvFormat kv_format;
};

// Overwrites what is discarded, so that whoever reads it all the same gets other numbers.
class SpoilingRunner final : public ForwardingRunner {
 public:
  using ForwardingRunner::ForwardingRunner;
  void DiscardKv(int64_t begin, int64_t end) override {
    const std::vector<char> spoilt(static_cast<size_t>(kv_block_bytes()), '\x41');
    for (int64_t at = begin; at < end; at += kLayout.block_stride) {
      RestoreBlock(at / kLayout.block_stride, spoilt);
      ++num_discarded;
    }
  }

  int64_t num_discarded = 0;  // blocks
};

class MemoryInvarianceTest : public testing::TestWithParam<Numbers> {
 protected:
  TestModel Load(KvPlacement placement) {
    BackendOptions options = ExactOptions();
    options.mode = GetParam().mode;
    return LoadTestModel(GoldenPath("models/llama"), "cpu", options, 16 << 20, GetParam().kv_format,
                         placement);
  }
  static std::map<int64_t, Answer> RunAll(LoopRunner& loop, TestModel& test,
                                          const std::function<void()>& between = nullptr) {
    int32_t first = 0;
    for (int32_t i = 0; i < 2; ++i) {
      loop.Add(PromptOf(first++), nullptr);
      for (const char* name : {"plain", "prefix_tuning", "ia3_default"}) {
        loop.Add(PromptOf(first++), *test.adapters->Acquire(name, ""));
      }
    }
    return loop.Run(between);
  }
  static std::unique_ptr<SpillStore> MakeSpill(const Model& model) {
    SpillStore::Options options;
    options.block_bytes = model.kv_block_bytes();
    options.num_memory_blocks = 100;
    StatusOr<std::unique_ptr<SpillStore>> spill = SpillStore::Create(options);
    EXPECT_TRUE(spill.ok()) << spill.status();
    return *std::move(spill);
  }
  static void LoadAdapters(TestModel& test) {
    for (const char* name : {"plain", "prefix_tuning", "ia3_default"}) {
      LoadAdapterSpec spec;
      spec.name = name;
      spec.path = GoldenPath(std::string("adapters/llama/") + name);
      EXPECT_TRUE(test.adapters->Load(spec, nullptr).ok()) << name;
    }
  }
};

TEST_P(MemoryInvarianceTest, PagesThatComeAndGoChangeNoBit) {
  TestModel own = Load(KvPlacement::kByLayer);
  LoadAdapters(own);
  LoopRunner roomy(*own.model, 100);
  const std::map<int64_t, Answer> expected = RunAll(roomy, own);
  ASSERT_EQ(expected.size(), 8u);

  TestModel shared = Load(KvPlacement::kByBlock);
  LoadAdapters(shared);
  FakeClock clock;
  MemoryLedger memory(kNumPages, kLayout.num_fixed, clock);
  SpoilingRunner runner(*shared.model);
  const auto spill = MakeSpill(*shared.model);
  std::mt19937 random(4);
  std::optional<MemoryLedger::Need> need;
  int64_t taken = 0;
  int64_t num_placed = 0;
  const auto press = [&] {
    if (taken > 0 && random() % 4 == 0) memory.ReturnFromAdapters(std::exchange(taken, 0));
    if (taken > 0) return;
    if (!need) {
      const int64_t most = memory.max_adapter_pages();
      need.emplace(memory, 1 + static_cast<int64_t>(random()) % most);
      memory.SetAdapters(need->pages(), most);
      need->AskKv();
    }
    if (!memory.TakeForAdapters(need->pages())) return;
    taken = need->pages();
    need.reset();
    ++num_placed;
  };
  for (SpillStore* store : {static_cast<SpillStore*>(nullptr), spill.get()}) {
    LoopRunner loop(*shared.model, {.num_blocks = kNumBlocks,
                                    .spill = store,
                                    .memory = &memory,
                                    .layout = kLayout,
                                    .runner = &runner});
    EXPECT_EQ(RunAll(loop, shared, press), expected);
    EXPECT_GT(loop.num_preemptions(), 2);
    memory.ReturnFromAdapters(std::exchange(taken, 0));
    need.reset();
    memory.ReturnFromKv(memory.counts().kv - kLayout.num_fixed);  // the next has a pool of its own
  }
  EXPECT_GT(num_placed, 5);
  EXPECT_GT(runner.num_discarded, 50);
}

INSTANTIATE_TEST_SUITE_P(Modes, MemoryInvarianceTest,
                         testing::Values(Numbers{ComputeMode::kF32, KvFormat::kAuto},
                                         Numbers{ComputeMode::kBF16, KvFormat::kAuto},
                                         Numbers{ComputeMode::kBF16, KvFormat::kInt8},
                                         Numbers{ComputeMode::kBF16, KvFormat::kInt4}));

}  // namespace
}  // namespace polyad
