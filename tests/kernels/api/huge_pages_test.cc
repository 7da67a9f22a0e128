#include "kernels/api/huge_pages.h"

#include <cstring>
#include <vector>

#include "gtest/gtest.h"

namespace polyad {
namespace {

class HugePagesTest : public testing::Test {
 protected:
  void SetUp() override { HugePages::ReleaseKept(); }
  void TearDown() override { HugePages::ReleaseKept(); }
};

TEST_F(HugePagesTest, FreshMemoryIsZeroAndOnAPagesBoundary) {
  const auto pages = HugePages::Allocate(1);
  ASSERT_TRUE(pages.ok());
  EXPECT_TRUE(pages->is_zero);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(pages->memory.get()) % kHugePage, 0u);
  for (int64_t i = 0; i < kHugePage; i += 4096) EXPECT_EQ(pages->memory.get()[i], 0);
}

TEST_F(HugePagesTest, WhatIsGivenBackIsGivenOutAgain) {
  char* before = nullptr;
  {
    const auto pages = HugePages::Allocate(2 * kHugePage);
    ASSERT_TRUE(pages.ok());
    before = pages->memory.get();
    std::memset(before, 7, 2 * kHugePage);
  }
  EXPECT_EQ(HugePages::kept_bytes(), 2 * kHugePage);
  const auto other = HugePages::Allocate(kHugePage);  // has another size
  ASSERT_TRUE(other.ok());
  EXPECT_TRUE(other->is_zero);
  const auto again = HugePages::Allocate(2 * kHugePage - 5);
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->memory.get(), before);
  EXPECT_FALSE(again->is_zero);
  EXPECT_EQ(HugePages::kept_bytes(), 0);
}

TEST_F(HugePagesTest, KeepsNoMoreThanItsLimit) {
  const int64_t piece = HugePages::kMaxKept / 4;
  std::vector<HugePages> many;
  for (int i = 0; i < 6; ++i) many.push_back(*HugePages::Allocate(piece));
  many.clear();
  EXPECT_EQ(HugePages::kept_bytes(), HugePages::kMaxKept);
  { const auto large = HugePages::Allocate(2 * HugePages::kMaxKept); }
  EXPECT_EQ(HugePages::kept_bytes(), HugePages::kMaxKept);
  HugePages::ReleaseKept();
  EXPECT_EQ(HugePages::kept_bytes(), 0);
}

TEST_F(HugePagesTest, RefusesWhatNoMachineHas) {
  EXPECT_EQ(HugePages::Allocate(-1).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(HugePages::Allocate(int64_t{1} << 62).status().code(),
            absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace polyad
