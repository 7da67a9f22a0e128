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

void PublishAll(BlockPool& pool, const std::vector<PrefixKey>& keys, Table& table) {
  for (size_t i = 0; i < table.size(); ++i) pool.Publish(keys[i + 1], table[i]);
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
  pool.Publish(keys[1], table[0]);
  pool.Publish(keys[3], table[2]);
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

}  // namespace
}  // namespace polyad
