#include "kernels/shard/rank_memory.h"

#include <array>

#include "gtest/gtest.h"

namespace polyad::test {
namespace {

TEST(RankMemoryTest, APointerIntoRank0sMemoryIsOneIntoEveryRanks) {
  RankMemory memory;
  const auto first = std::make_shared<std::array<char, 64>>();
  const auto second = std::make_shared<std::array<char, 64>>();
  std::shared_ptr<void> held = memory.Add({first, second}, 64);
  EXPECT_EQ(held.get(), first->data());
  const RankMemory::Place place = memory.Find(first->data() + 63);
  EXPECT_TRUE(place.is_copied());
  EXPECT_EQ(place.At(0), first->data() + 63);
  EXPECT_EQ(place.At(1), second->data() + 63);
}

TEST(RankMemoryTest, OtherMemoryIsTheSameForAll) {
  RankMemory memory;
  std::array<char, 192> all = {};
  char* middle = all.data() + 64;
  const std::shared_ptr<void> held =
      memory.Add({std::shared_ptr<void>(middle, [](void*) {}), std::make_shared<int>()}, 64);
  for (char* outside : {middle - 1, middle + 64, static_cast<char*>(nullptr)}) {
    EXPECT_FALSE(memory.Find(outside).is_copied());
    EXPECT_EQ(memory.Find(outside).At(1), outside);
  }
}

TEST(RankMemoryTest, AllCopiesGoWithRank0s) {
  RankMemory memory;
  const auto first = std::make_shared<std::array<char, 64>>();
  const auto second = std::make_shared<std::array<char, 64>>();
  std::shared_ptr<void> held = memory.Add({first, second}, 64);
  EXPECT_EQ(second.use_count(), 2);
  held.reset();
  EXPECT_EQ(first.use_count(), 1);
  EXPECT_EQ(second.use_count(), 1);
  EXPECT_FALSE(memory.Find(first->data()).is_copied());
}

}  // namespace
}  // namespace polyad::test
