// covers: engine/cache/spill_store.cc engine/cache/spill_file.cc
#include "engine/cache/spill_store.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <random>

namespace polyad {
namespace {

constexpr int64_t kBytes = 1000;

PrefixKey Key(int value) {
  PrefixKey key;
  key.bytes[0] = static_cast<uint8_t>(value);
  return key;
}

std::unique_ptr<SpillStore> MakeStore(int64_t num_memory, int64_t num_file = 0) {
  SpillStore::Options options;
  options.block_bytes = kBytes;
  options.num_memory_blocks = num_memory;
  options.num_file_blocks = num_file;
  options.directory = testing::TempDir();
  StatusOr<std::unique_ptr<SpillStore>> store = SpillStore::Create(options);
  EXPECT_TRUE(store.ok()) << store.status();
  return *std::move(store);
}

void Put(SpillStore& store, int value) {
  const std::span<char> room = store.Reserve(Key(value));
  ASSERT_EQ(room.size(), static_cast<size_t>(kBytes));
  for (size_t i = 0; i < room.size(); ++i) room[i] = static_cast<char>(value + static_cast<int>(i));
  store.CheckInvariants();
}

bool Holds(const SpillStore& store, int value) {
  const PrefixKey key = Key(value);
  return store.FindPrefix(std::span(&key, 1), 0, 1) == 1;
}

void ExpectContent(SpillStore& store, int value) {
  std::array<char, kBytes> content{};
  ASSERT_TRUE(store.Read(Key(value), content).ok());
  for (size_t i = 0; i < content.size(); ++i) {
    ASSERT_EQ(content[i], static_cast<char>(value + static_cast<int>(i))) << value << " at " << i;
  }
}

TEST(SpillStore, GivesBackWhatItWasGiven) {
  const auto store = MakeStore(3);
  for (int value : {1, 2, 3}) Put(*store, value);
  for (int value : {3, 1, 2, 1}) ExpectContent(*store, value);
  EXPECT_EQ(store->num_in_memory(), 3);
}

TEST(SpillStore, LetsGoOfWhatWasUsedLongestAgo) {
  const auto store = MakeStore(3);
  for (int value : {1, 2, 3}) Put(*store, value);
  ExpectContent(*store, 1);
  EXPECT_TRUE(store->Reserve(Key(2)).empty()) << "it is held already, and used now";
  Put(*store, 4);
  EXPECT_FALSE(Holds(*store, 3));
  for (int value : {1, 2, 4}) ExpectContent(*store, value);
}

TEST(SpillStore, OverflowsIntoTheFileAndReadsItBack) {
  const auto store = MakeStore(2, 3);
  for (int value = 1; value <= 5; ++value) Put(*store, value);
  EXPECT_EQ(store->num_in_memory(), 2);
  EXPECT_EQ(store->num_in_file(), 3);
  for (int value = 5; value >= 1; --value) ExpectContent(*store, value);
  Put(*store, 6);  // 4 leaves memory; of the file's, 3 was used longest ago
  EXPECT_FALSE(Holds(*store, 3));
  for (int value : {1, 2, 4, 5, 6}) ExpectContent(*store, value);
}

TEST(SpillStore, WhatAStepWillReadIsKept) {
  const auto store = MakeStore(2);
  Put(*store, 1);
  Put(*store, 2);
  store->Keep(Key(1));
  Put(*store, 3);
  EXPECT_TRUE(Holds(*store, 1));
  store->Keep(Key(3));
  EXPECT_TRUE(store->Reserve(Key(4)).empty()) << "no room";
  ExpectContent(*store, 1);
  Put(*store, 4);
  EXPECT_FALSE(Holds(*store, 1));
}

TEST(SpillStore, FindsAPrefixUpToTheFirstGap) {
  const auto store = MakeStore(4);
  for (int value : {1, 2, 4}) Put(*store, value);
  const std::array<PrefixKey, 5> keys = {Key(0), Key(1), Key(2), Key(3), Key(4)};
  EXPECT_EQ(store->FindPrefix(keys, 1, 5), 2);
  EXPECT_EQ(store->FindPrefix(keys, 2, 3), 1);
  EXPECT_EQ(store->FindPrefix(keys, 4, 100), 1);
  EXPECT_EQ(store->FindPrefix(keys, 0, 5), 0);
}

TEST(SpillStore, ForgetsInBothTiers) {
  const auto store = MakeStore(1, 2);
  for (int value : {1, 2, 3}) Put(*store, value);
  const std::array<PrefixKey, 3> keys = {Key(1), Key(3), Key(9)};
  store->Forget(keys);
  store->CheckInvariants();
  EXPECT_EQ(store->num_in_memory() + store->num_in_file(), 1);
  ExpectContent(*store, 2);
  std::array<char, kBytes> content{};
  EXPECT_TRUE(absl::IsUnavailable(store->Read(Key(1), content)));
}

TEST(SpillStore, TheFileHasNoName) {
  const std::filesystem::path directory =
      std::filesystem::path(testing::TempDir()) / "polyad_spill_test";
  std::filesystem::create_directories(directory);
  SpillStore::Options options;
  options.block_bytes = kBytes;
  options.num_memory_blocks = 1;
  options.num_file_blocks = 1;
  options.directory = directory;
  {
    const auto store = SpillStore::Create(options);
    ASSERT_TRUE(store.ok());
    EXPECT_TRUE(std::filesystem::is_empty(directory));
  }
  std::filesystem::remove(directory);
  const Status refused = SpillStore::Create(options).status();
  EXPECT_TRUE(absl::IsUnavailable(refused));
  EXPECT_NE(refused.message().find("polyad_spill_test"), std::string_view::npos);
}

TEST(SpillStore, KeepsItsInvariantsUnderRandomUse) {
  std::mt19937 random(5);
  const auto store = MakeStore(6, 9);
  for (int round = 0; round < 20000; ++round) {
    const int value = static_cast<int>(random() % 40);
    if (Holds(*store, value)) {
      if (random() % 3 == 0) store->Keep(Key(value));
      ExpectContent(*store, value);
      const PrefixKey key = Key(value);
      if (random() % 8 == 0) store->Forget(std::span(&key, 1));
    } else {
      Put(*store, value);
    }
    store->CheckInvariants();
  }
}

}  // namespace
}  // namespace polyad
