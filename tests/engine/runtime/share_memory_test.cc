#include "engine/runtime/share_memory.h"

#include <gtest/gtest.h>

#include "engine/runtime/sequence.h"
#include "tests/sim/fake_model.h"

namespace polyad {
namespace {

// Four blocks to a page of two of the ledger's; eight pages, two of them K/V's for good.
constexpr int64_t kRatio = 2;
constexpr int64_t kOnPage = 4;
constexpr int64_t kPages = 8;
constexpr int64_t kFixed = 2;
constexpr int64_t kBlocks = kPages * kOnPage;

class ShareMemoryTest : public ::testing::Test {
 protected:
  explicit ShareMemoryTest(int64_t spilled_blocks = 0)
      : model_(kBlocks),
        memory_(kPages * kRatio, kFixed * kRatio, clock_),
        spill_(MakeSpill(spilled_blocks)),
        state_(Limits(), spill_.get(), &memory_) {
    model_.SetBlockStride(Layout().block_stride);
  }

  static BlockPages::Layout Layout() {
    const int64_t page_bytes = kRatio * MemoryLedger::kPageBytes;
    return {page_bytes / kOnPage, page_bytes, kFixed};
  }
  static EngineLimits Limits() {
    EngineLimits limits;
    limits.num_blocks = kBlocks;
    limits.kv_layout = Layout();
    limits.max_context = 1000;
    limits.scheduler.max_running = 4;
    return limits;
  }
  std::unique_ptr<SpillStore> MakeSpill(int64_t num_blocks) {
    if (num_blocks == 0) return nullptr;
    SpillStore::Options options;
    options.block_bytes = model_.kv_block_bytes();
    options.num_memory_blocks = num_blocks;
    return *SpillStore::Create(options);
  }
  void Share() {
    clock_.AdvanceMicros(20'000);
    ShareMemory(state_, model_, clock_.NowMicros());
    state_.CheckInvariants();
  }
  // A waiting request with so many blocks of prompt.
  int64_t AddRequest(int64_t num_blocks) {
    auto request = std::make_shared<Request>();
    request->prompt_tokens.assign(static_cast<size_t>(num_blocks * kBlockTokens), 1);
    Arrive arrive;
    arrive.number = next_number_++;
    arrive.request = std::move(request);
    state_.AddRequest(std::move(arrive), clock_.NowMicros());
    return arrive.number;
  }
  void RunRequest(int64_t number) {
    Sequence& sequence = *state_.Find(IdOf(number, 0));
    state_.pool.Allocate(sequence.blocks_for_all(), sequence.blocks);
    sequence.running = true;
  }
  void EndRequest(int64_t number) {
    state_.FinishRequest(number, FinishReason::kCancelled, Cancelled("done"), clock_.NowMicros());
  }
  // Blocks that are cached, each with content of its own.
  std::vector<PrefixKey> Cache(int64_t count) {
    std::vector<PrefixKey> keys(1);
    BlockTable table;
    state_.pool.Allocate(count, table);
    for (BlockId& block : table) {
      PrefixKey key;
      key.bytes[0] = static_cast<uint8_t>(++num_cached_);
      model_.RestoreBlock(block.value(),
                          std::vector<char>(static_cast<size_t>(model_.kv_block_bytes()), 'a'));
      state_.pool.Publish(key, OwnerOf("tenant"), block);
      keys.push_back(key);
    }
    state_.pool.ReleaseAll(table);
    return keys;
  }
  MemoryLedger::Counts pages() const { return memory_.counts(); }

  FakeClock clock_;
  FakeModel model_;
  MemoryLedger memory_;
  std::unique_ptr<SpillStore> spill_;
  EngineState state_;
  int64_t next_number_ = 1;
  int num_cached_ = 0;
};

TEST_F(ShareMemoryTest, PagesAreTakenForWhatWaits) {
  Share();
  EXPECT_EQ(pages().kv, kFixed * kRatio);
  AddRequest(4 * kOnPage);
  Share();
  EXPECT_EQ(state_.pool.pages().num_present(), 5);  // and a block to go on with
  EXPECT_EQ(state_.Snapshot().memory_bytes.kv, 5 * Layout().page_bytes);
  EXPECT_EQ(state_.Snapshot().memory_bytes.free, 3 * Layout().page_bytes);
}

TEST_F(ShareMemoryTest, NoPageIsTakenThatAnAdapterWaitsFor) {
  MemoryLedger::Need need(memory_, 5 * kRatio);
  AddRequest(4 * kOnPage);
  Share();
  EXPECT_EQ(state_.pool.pages().num_present(), 3);
}

TEST_F(ShareMemoryTest, WhatIsAskedForIsGivenOfTheCachedAndItsMemoryDiscarded) {
  AddRequest(4 * kOnPage);
  Share();
  EndRequest(1);
  const auto keys = Cache(5 * kOnPage);
  EXPECT_EQ(state_.Snapshot().memory_bytes.prefix, 5 * Layout().page_bytes);
  MemoryLedger::Need need(memory_, 5 * kRatio);  // three pages are free
  need.AskKv();
  Share();
  EXPECT_EQ(pages().free, 5 * kRatio);
  EXPECT_TRUE(memory_.TakeForAdapters(5 * kRatio));
  EXPECT_EQ(state_.pool.num_cached(), 3 * kOnPage);
  std::vector<char> content(static_cast<size_t>(model_.kv_block_bytes()));
  int64_t num_discarded = 0;
  for (int64_t block = 0; block < 5 * kOnPage; ++block) {
    model_.SaveBlock(block, content);
    if (content[0] != 'a') ++num_discarded;
  }
  EXPECT_EQ(num_discarded, 2 * kOnPage);
}

class SpillingShareMemoryTest : public ShareMemoryTest {
 protected:
  SpillingShareMemoryTest() : ShareMemoryTest(100) {}
};

TEST_F(SpillingShareMemoryTest, WhatIsGivenIsSpilledFirst) {
  AddRequest(4 * kOnPage);
  Share();
  EndRequest(1);
  const auto keys = Cache(5 * kOnPage);
  MemoryLedger::Need need(memory_, memory_.max_adapter_pages());
  need.AskKv();
  Share();
  EXPECT_EQ(state_.counters.num_kv_blocks_saved, 3 * kOnPage);
  std::vector<char> content(static_cast<size_t>(model_.kv_block_bytes()));
  int64_t num_found = 0;
  for (const PrefixKey& key : keys) {
    const std::array<PrefixKey, 2> chain{PrefixKey{}, key};
    if (spill_->FindPrefix(chain, 1, 2) == 0) continue;
    ASSERT_TRUE(spill_->Read(key, content).ok());
    EXPECT_EQ(content, std::vector<char>(content.size(), 'a'));
    ++num_found;
  }
  EXPECT_EQ(num_found, 3 * kOnPage);
}

// A running sequence keeps its blocks, but where adapters are below their floor no other gets them.
TEST_F(ShareMemoryTest, HeldPagesComeAsTheirHoldersEnd) {
  for (int i = 0; i < 2; ++i) AddRequest(3 * kOnPage);
  Share();
  RunRequest(1);
  RunRequest(2);
  Share();
  EXPECT_EQ(pages().free, kRatio);
  MemoryLedger::Need need(memory_, 3 * kRatio);
  need.AskKv();
  Share();
  EXPECT_EQ(pages().free, kRatio + kRatio);  // the page that nobody was on
  EXPECT_EQ(state_.pool.pages().num_condemned(), 0);
  memory_.SetAdapters(3 * kRatio, 3 * kRatio);
  Share();
  EXPECT_EQ(state_.pool.pages().num_condemned(), 1);
  EndRequest(1);
  EXPECT_EQ(state_.pool.num_available(), 3 * kOnPage);
  EndRequest(2);
  Share();
  EXPECT_EQ(pages().free, 3 * kRatio);
  EXPECT_TRUE(memory_.TakeForAdapters(need.pages()));
}

TEST_F(ShareMemoryTest, AdaptersAreAskedForWhatIsMissing) {
  ASSERT_TRUE(memory_.TakeForAdapters(6 * kRatio));
  AddRequest(3 * kOnPage);
  Share();
  EXPECT_GE(memory_.WaitForAsk(), kRatio);
  memory_.DoneAsking();
  memory_.ReturnFromAdapters(6 * kRatio);
  Share();
  EXPECT_GE(state_.pool.num_unused(), 3 * kOnPage);
}

TEST_F(ShareMemoryTest, PagesThatNobodyNeedsAreGivenBackButForAFew) {
  constexpr int64_t kMany = 40;
  FakeModel model(kMany * kOnPage);
  MemoryLedger memory(kMany * kRatio, kFixed * kRatio, clock_);
  EngineLimits limits = Limits();
  limits.num_blocks = kMany * kOnPage;
  EngineState state(limits, nullptr, &memory);
  state.pool.Grow(limits.num_blocks,
                  [&](int64_t pages) { return memory.TakeForKv(pages * kRatio); });
  BlockTable held;
  state.pool.Allocate(20 * kOnPage, held);
  ShareMemory(state, model, clock_.NowMicros());
  EXPECT_EQ(state.pool.pages().num_present(), 20 + 8);
  EXPECT_EQ(memory.counts().kv, (20 + 8) * kRatio);
  state.pool.ReleaseAll(held);
  ShareMemory(state, model, clock_.NowMicros());
  EXPECT_EQ(state.pool.pages().num_present(), kFixed + 8);
}

}  // namespace
}  // namespace polyad
