#include "engine/cache/block_pool.h"

#include <gtest/gtest.h>

#include <random>

namespace polyad {
namespace {

using Table = std::vector<BlockId>;

void Check(const BlockPool& pool, std::initializer_list<const Table*> tables) {
  const std::vector<const Table*> all(tables);
  pool.CheckInvariants(all);
}

std::vector<PrefixKey> KeysOf(int32_t first_token, int64_t num_blocks) {
  PrefixChain chain;
  chain.keys = {RootKey({})};
  std::vector<int32_t> tokens(static_cast<size_t>(num_blocks * kBlockTokens), first_token);
  ExtendKeys(tokens, chain);
  return chain.keys;
}

constexpr BlockOwner kTenant = 1;

void PublishAll(BlockPool& pool, const std::vector<PrefixKey>& keys, Table& table,
                BlockOwner owner = kTenant) {
  for (size_t i = 0; i < table.size(); ++i) pool.Publish(keys[i + 1], owner, table[i]);
}

// `count` cached blocks of an owner; the keys by which they are found.
std::vector<PrefixKey> Cache(BlockPool& pool, BlockOwner owner, int32_t first_token,
                             int64_t count) {
  const auto keys = KeysOf(first_token, count);
  Table table;
  pool.Allocate(count, table);
  PublishAll(pool, keys, table, owner);
  pool.ReleaseAll(table);
  return keys;
}

TEST(BlockPool, FreesABlockWhenItsLastHolderLetsGo) {
  BlockPool pool(4);
  Table first;
  pool.Allocate(3, first);
  Table second = {first[0]};
  pool.Hold(first[0]);
  EXPECT_EQ(pool.NumExclusive(first), 2);
  pool.ReleaseAll(first);
  EXPECT_EQ(pool.num_available(), 3);
  Check(pool, {&second});
  pool.ReleaseAll(second);
  EXPECT_EQ(pool.num_available(), 4);
  Check(pool, {});
}

TEST(BlockPool, WhatIsBehindAWindowGoesBackAndLeavesItsPlace) {
  BlockPool pool(4);
  const auto keys = KeysOf(1, 3);
  Table table;
  pool.Allocate(3, table);
  PublishAll(pool, keys, table);
  pool.ReleaseRange(0, 2, table);
  EXPECT_EQ(table.size(), 3u);
  EXPECT_FALSE(table[0].valid() || table[1].valid());
  EXPECT_EQ(pool.num_available(), 3);
  EXPECT_EQ(pool.NumExclusive(table), 1);
  Check(pool, {&table});
  Table other;
  EXPECT_EQ(pool.FindPrefix(keys, 3).from_cache, 2);  // findable until they are evicted
  pool.TakePrefix(keys, 3, other);
  EXPECT_EQ(pool.NumExclusive(table), 0);
  Check(pool, {&table, &other});
  pool.ReleaseAll(table);
  EXPECT_TRUE(table.empty());
  pool.ReleaseRange(0, 1, other);
  pool.ReleaseAll(other);
  EXPECT_EQ(pool.num_available(), 4);
  Check(pool, {});
}

TEST(BlockPool, APublishedPrefixIsFoundAfterItsSequenceEnds) {
  BlockPool pool(4);
  const auto keys = KeysOf(1, 3);
  Table table;
  pool.Allocate(3, table);
  const Table before = table;
  PublishAll(pool, keys, table);
  pool.ReleaseAll(table);
  EXPECT_EQ(pool.num_cached(), 3);
  EXPECT_EQ(pool.num_available(), 4);

  const BlockPool::Match match = pool.FindPrefix(keys, 2);  // the limit holds
  EXPECT_EQ(match.num_blocks, 2);
  EXPECT_EQ(match.from_cache, 2);
  pool.TakePrefix(keys, match.num_blocks, table);
  EXPECT_EQ(table, Table(before.begin(), before.begin() + 2));
  EXPECT_EQ(pool.FindPrefix(keys, 3).from_cache, 1);
  Check(pool, {&table});
}

TEST(BlockPool, AChainBreaksAtTheFirstMissingBlock) {
  BlockPool pool(8);
  const auto keys = KeysOf(1, 3);
  Table table;
  pool.Allocate(3, table);
  pool.Publish(keys[1], kTenant, table[0]);
  pool.Publish(keys[3], kTenant, table[2]);
  EXPECT_EQ(pool.FindPrefix(keys, 3).num_blocks, 1);
  EXPECT_EQ(pool.FindPrefix(KeysOf(2, 3), 3).num_blocks, 0);
}

TEST(BlockPool, EvictsTheTailOfThePrefixLetGoLongestAgo) {
  BlockPool pool(4);
  const auto old_keys = KeysOf(1, 2);
  const auto new_keys = KeysOf(2, 2);
  Table old_table;
  Table new_table;
  pool.Allocate(2, old_table);
  pool.Allocate(2, new_table);
  PublishAll(pool, old_keys, old_table);
  PublishAll(pool, new_keys, new_table);
  pool.ReleaseAll(old_table);
  pool.ReleaseAll(new_table);

  Table other;
  pool.Allocate(1, other);
  EXPECT_EQ(pool.FindPrefix(old_keys, 2).num_blocks, 1);
  EXPECT_EQ(pool.FindPrefix(new_keys, 2).num_blocks, 2);
  pool.Allocate(1, other);
  EXPECT_EQ(pool.FindPrefix(old_keys, 2).num_blocks, 0);
  EXPECT_EQ(pool.FindPrefix(new_keys, 2).num_blocks, 2);
  Check(pool, {&other});
}

TEST(BlockPool, UnusedBlocksGoBeforeCachedOnes) {
  BlockPool pool(3);
  const auto keys = KeysOf(1, 1);
  Table table;
  pool.Allocate(1, table);
  PublishAll(pool, keys, table);
  pool.ReleaseAll(table);
  pool.Allocate(2, table);
  EXPECT_EQ(pool.FindPrefix(keys, 1).num_blocks, 1);
}

TEST(BlockPool, OnesPromptsDoNotDriveOutAnothers) {
  BlockPool pool(10);
  const auto modest = Cache(pool, 1, 1, 2);  // let go long ago
  const auto greedy = Cache(pool, 2, 2, 8);
  Table table;
  pool.Allocate(5, table);
  EXPECT_EQ(pool.FindPrefix(modest, 2).num_blocks, 2);
  EXPECT_EQ(pool.FindPrefix(greedy, 8).num_blocks, 3);
  Check(pool, {&table});
}

TEST(BlockPool, SoftPromptsAreEvictedLast) {
  BlockPool pool(6);
  const auto prompt = Cache(pool, kSoftPrompts, 1, 3);
  const auto text = Cache(pool, kTenant, 2, 3);
  EXPECT_EQ(pool.num_soft_prompt(), 3);
  Table table;
  pool.Allocate(3, table);
  EXPECT_EQ(pool.FindPrefix(text, 3).num_blocks, 0);
  EXPECT_EQ(pool.FindPrefix(prompt, 3).num_blocks, 3);
  pool.Allocate(1, table);
  EXPECT_EQ(pool.FindPrefix(prompt, 3).num_blocks, 2);
  EXPECT_EQ(pool.num_soft_prompt(), 2);
  Check(pool, {&table});
}

TEST(BlockPool, WhatIsForgottenIsFoundByNobody) {
  BlockPool pool(6);
  const auto keys = Cache(pool, kSoftPrompts, 1, 3);
  Table held;
  pool.TakePrefix(keys, 1, held);
  pool.Forget(keys);  // the root names no block
  EXPECT_EQ(pool.FindPrefix(keys, 3).num_blocks, 0);
  EXPECT_EQ(pool.num_cached(), 0);
  EXPECT_EQ(pool.num_soft_prompt(), 0);
  EXPECT_EQ(pool.num_held(), 1);
  Check(pool, {&held});
  pool.ReleaseAll(held);
  EXPECT_EQ(pool.num_held(), 0);
  EXPECT_EQ(pool.num_cached(), 0);
  Check(pool, {});
}

TEST(BlockPool, CountsBlocksThatSeveralHold) {
  BlockPool pool(4);
  const auto keys = Cache(pool, kTenant, 1, 2);
  Table first;
  Table second;
  pool.TakePrefix(keys, 2, first);
  EXPECT_EQ(pool.num_shared(), 0);
  pool.TakePrefix(keys, 1, second);
  EXPECT_EQ(pool.num_shared(), 1);
  pool.ReleaseAll(first);
  EXPECT_EQ(pool.num_shared(), 0);
  Check(pool, {&second});
}

TEST(BlockPool, EqualContentEndsUpInOneBlock) {
  BlockPool pool(4);
  const auto keys = KeysOf(1, 1);
  Table first;
  Table second;
  pool.Allocate(1, first);
  pool.Allocate(1, second);
  PublishAll(pool, keys, first);
  PublishAll(pool, keys, second);
  EXPECT_EQ(first, second);
  EXPECT_EQ(pool.num_held(), 1);
  Check(pool, {&first, &second});
}

TEST(BlockPool, KeepsItsInvariantsUnderRandomUse) {
  std::mt19937 random(1);
  BlockPool pool(12);
  std::vector<Table> tables(6);
  std::vector<std::vector<PrefixKey>> keys(6);
  for (int round = 0; round < 3000; ++round) {
    const size_t i = random() % tables.size();
    if (!tables[i].empty()) {
      PublishAll(pool, keys[i], tables[i]);
      pool.ReleaseAll(tables[i]);
    } else {
      const int64_t want = 1 + static_cast<int64_t>(random() % 4);
      keys[i] = KeysOf(static_cast<int32_t>(random() % 3), want);
      const BlockPool::Match match = pool.FindPrefix(keys[i], want);
      if (want - match.num_blocks > pool.num_available() - match.from_cache) continue;
      pool.TakePrefix(keys[i], match.num_blocks, tables[i]);
      pool.Allocate(want - match.num_blocks, tables[i]);
    }
    std::vector<const Table*> all;
    for (const Table& table : tables) all.push_back(&table);
    pool.CheckInvariants(all);
  }
}

// Blocks of 3 on pages of 8: the third block lies on two pages, the fourth page ends inside one.
constexpr BlockPages::Layout kPaged{3, 8, 1};

bool Always(int64_t) { return true; }

TEST(BlockPool, BlocksAreThereOnceTheirPagesAre) {
  BlockPool pool(10, kPaged);
  EXPECT_EQ(pool.pages().num_pages(), 4);
  EXPECT_EQ(pool.num_available(), 2);  // whole ones on the first page
  EXPECT_EQ(pool.num_held(), 0);
  int64_t taken = 0;
  pool.Grow(3, [&](int64_t pages) {
    taken += pages;
    return true;
  });
  EXPECT_EQ(taken, 1);
  EXPECT_EQ(pool.num_available(), 5);
  pool.Grow(6, [](int64_t) { return false; });
  EXPECT_EQ(pool.num_available(), 5);
  pool.Grow(100, Always);
  EXPECT_EQ(pool.num_available(), 10);
  EXPECT_EQ(pool.pages().num_present(), 4);
  Check(pool, {});
}

TEST(BlockPool, TheLowestBlocksAreTakenFirstSoThatTheLastPagesEmpty) {
  BlockPool pool(10, kPaged);
  pool.Grow(10, Always);
  Table first;
  Table second;
  pool.Allocate(4, first);
  pool.Allocate(4, second);
  pool.ReleaseAll(first);
  Table third;
  pool.Allocate(1, third);
  EXPECT_EQ(third[0].value(), 0);
  pool.ReleaseAll(second);
  EXPECT_EQ(pool.pages().num_empty(), 3);
  EXPECT_EQ(pool.Shrink(100), (std::vector<int64_t>{3, 2, 1}));  // the first is there for good
  EXPECT_EQ(pool.num_available(), 1);
  Check(pool, {&third});
  EXPECT_TRUE(pool.Shrink(1).empty());
}

TEST(BlockPool, AHeldBlockKeepsAllItsPages) {
  BlockPool pool(10, kPaged);
  pool.Grow(10, Always);
  Table table;
  pool.Allocate(3, table);
  Table last = {table[2]};  // on pages 0 and 1
  table.pop_back();
  pool.ReleaseAll(table);
  EXPECT_EQ(pool.Shrink(100), (std::vector<int64_t>{3, 2}));
  EXPECT_EQ(pool.NumExclusive(last), 1);
  Check(pool, {&last});
  pool.ReleaseAll(last);
  EXPECT_EQ(pool.Shrink(100), std::vector<int64_t>{1});
}

TEST(BlockPool, TheColdestPageGoesFirstAndSoftPromptsLast) {
  BlockPool pool(9, {8, 8, 1});  // a block is a page
  pool.Grow(9, Always);
  Table floor;
  pool.Allocate(1, floor);
  pool.SetNow(30);
  const auto newest = Cache(pool, kTenant, 1, 1);
  pool.SetNow(10);
  const auto prompt = Cache(pool, kSoftPrompts, 2, 1);
  pool.SetNow(20);
  const auto older = Cache(pool, kTenant, 3, 1);
  EXPECT_EQ(pool.Shrink(5).size(), 5u);  // those with nothing
  EXPECT_EQ(pool.pages().ColdestOne().last_used_us, 20);
  EXPECT_EQ(pool.Shrink(1).size(), 1u);
  EXPECT_EQ(pool.FindPrefix(older, 1).num_blocks, 0);
  const auto evicted = pool.TakeEvicted();
  ASSERT_EQ(evicted.size(), 1u);
  EXPECT_EQ(evicted[0].key, older[1]);
  EXPECT_EQ(pool.Shrink(1).size(), 1u);
  EXPECT_EQ(pool.FindPrefix(newest, 1).num_blocks, 0);
  EXPECT_EQ(pool.FindPrefix(prompt, 1).num_blocks, 1);
  Check(pool, {&floor});
}

TEST(BlockPool, WhatIsCondemnedEmptiesAndIsGivenFirst) {
  BlockPool pool(6, {8, 8, 1});
  pool.Grow(6, Always);
  Table table;
  pool.Allocate(5, table);
  Table last = {table[4]};
  table.pop_back();
  pool.Condemn(2);  // pages 5 and 4
  EXPECT_EQ(pool.num_available(), 0);
  EXPECT_EQ(pool.NumExclusive(last), 0);  // it would not be available
  EXPECT_EQ(pool.NumExclusive(table), 4);
  Check(pool, {&table, &last});
  pool.ReleaseAll(last);
  EXPECT_EQ(pool.num_available(), 0);
  EXPECT_EQ(pool.Shrink(1), std::vector<int64_t>{5});
  pool.Condemn(0);
  EXPECT_EQ(pool.num_available(), 1);
  Check(pool, {&table});
}

// Pages come and go between any two operations; blocks on them are conserved.
TEST(BlockPool, KeepsItsInvariantsWhilePagesComeAndGo) {
  std::mt19937 random(2);
  int64_t num_grown = 0;
  int64_t num_shrunk = 0;
  for (const BlockPages::Layout& layout :
       {BlockPages::Layout{3, 8, 1}, {8, 8, 2}, {20, 8, 5}, {7, 64, 1}}) {
    BlockPool pool(24, layout);
    std::vector<Table> tables(6);
    std::vector<std::vector<PrefixKey>> keys(6);
    for (int round = 0; round < 3000; ++round) {
      pool.SetNow(round);
      const size_t i = random() % tables.size();
      const auto amount = static_cast<int64_t>(random() % 5);
      switch (random() % 6) {
        case 0:
          pool.Grow(pool.num_unused() + amount, [&](int64_t) { return random() % 3 > 0; });
          ++num_grown;
          break;
        case 1:
          num_shrunk += static_cast<int64_t>(pool.Shrink(amount).size());
          break;
        case 2:
          pool.Condemn(amount);
          break;
        default:
          if (!tables[i].empty()) {
            PublishAll(pool, keys[i], tables[i], random() % 4 == 0 ? kSoftPrompts : kTenant);
            pool.ReleaseAll(tables[i]);
          } else {
            const int64_t want = 1 + amount;
            keys[i] = KeysOf(static_cast<int32_t>(random() % 3), want);
            const BlockPool::Match match = pool.FindPrefix(keys[i], want);
            if (want - match.num_blocks > pool.num_available() - match.from_cache) continue;
            pool.TakePrefix(keys[i], match.num_blocks, tables[i]);
            pool.Allocate(want - match.num_blocks, tables[i]);
          }
      }
      std::vector<const Table*> all;
      for (const Table& table : tables) all.push_back(&table);
      pool.CheckInvariants(all);
    }
  }
  EXPECT_GT(num_grown, 1000);
  EXPECT_GT(num_shrunk, 300);
}

}  // namespace
}  // namespace polyad
