#include "engine/runtime/swap_blocks.h"

#include <gtest/gtest.h>

#include "tests/sim/fake_model.h"

namespace polyad {
namespace {

constexpr int64_t kBlocks = 4;

class SwapBlocksTest : public ::testing::Test {
 protected:
  SwapBlocksTest() : model_(kBlocks), spill_(MakeSpill(model_)), state_(Limits(), spill_.get()) {}

  static std::unique_ptr<SpillStore> MakeSpill(const FakeModel& model) {
    SpillStore::Options options;
    options.block_bytes = model.kv_block_bytes();
    options.num_memory_blocks = 4;
    return *SpillStore::Create(options);
  }
  static EngineLimits Limits() {
    EngineLimits limits;
    limits.num_blocks = kBlocks;
    limits.max_context = 64;
    return limits;
  }
  std::vector<char> ContentOf(int64_t block) const {
    std::vector<char> content(static_cast<size_t>(model_.kv_block_bytes()));
    model_.SaveBlock(block, content);
    return content;
  }

  FakeClock clock_;
  FakeModel model_;
  std::unique_ptr<SpillStore> spill_;
  EngineState state_;
};

TEST_F(SwapBlocksTest, WhatIsEvictedComesBackIntoAnotherBlock) {
  std::vector<char> content(static_cast<size_t>(model_.kv_block_bytes()), 'x');
  PrefixKey key;
  key.bytes[0] = 7;
  BlockTable table;
  state_.pool.Allocate(1, table);
  model_.RestoreBlock(table[0].value(), content);
  state_.pool.Publish(key, OwnerOf("tenant"), table[0]);
  state_.pool.ReleaseAll(table);
  state_.pool.Allocate(kBlocks, table);  // evicts it
  SwapBlocks(state_, model_, clock_);
  EXPECT_EQ(state_.counters.num_kv_blocks_saved, 1);

  const BlockId other = table[table[0].value() == 0 ? 1 : 0];
  state_.restores.push_back({SequenceId(0), key, other});
  SwapBlocks(state_, model_, clock_);
  EXPECT_EQ(state_.counters.num_kv_blocks_restored, 1);
  EXPECT_EQ(ContentOf(other.value()), content);
}

TEST_F(SwapBlocksTest, ARequestWhoseBlocksCannotBeReadEndsAndSaysWhy) {
  for (const int64_t number : {1, 2}) {
    auto request = std::make_shared<Request>();
    request->prompt_tokens = {1, 2, 3};
    Arrive arrive;
    arrive.number = number;
    arrive.request = std::move(request);
    state_.AddRequest(std::move(arrive), 0);
  }
  state_.restores.push_back({SequenceId(1 * kMaxChoices), PrefixKey{}, BlockId(0)});
  SwapBlocks(state_, model_, clock_);
  ASSERT_EQ(state_.outputs.size(), 1u);
  EXPECT_EQ(state_.outputs[0].number, 1);
  const auto& finish = std::get<FinishEvent>(state_.outputs[0].event);
  EXPECT_EQ(finish.reason, FinishReason::kError);
  EXPECT_TRUE(absl::IsUnavailable(finish.status)) << finish.status;
  EXPECT_EQ(state_.requests().size(), 1u);
  state_.CheckInvariants();
}

}  // namespace
}  // namespace polyad
