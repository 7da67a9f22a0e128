#include "kernels/api/pack_arena.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

namespace polyad {
namespace {

constexpr int64_t kKiB = 1024;

PackArena::Grant CountInto(std::vector<int64_t>& slabs) {
  return [&slabs](int64_t bytes) {
    slabs.push_back(bytes);
    return absl::OkStatus();
  };
}

TEST(PackArena, SlabsAreAskedForAndGrowWithWhatItHolds) {
  std::vector<int64_t> slabs;
  PackArena arena(CountInto(slabs));
  std::vector<std::shared_ptr<char>> pieces;
  for (int i = 0; i < 100; ++i) pieces.push_back(*arena.Allocate(100 * kKiB));
  int64_t sum = 0;
  for (const int64_t bytes : slabs) {
    EXPECT_EQ(bytes % PackArena::kPageBytes, 0);
    sum += bytes;
  }
  EXPECT_EQ(slabs.front(), 128 * kKiB);
  EXPECT_EQ(slabs.back(), 4096 * kKiB);
  EXPECT_EQ(arena.bytes(), sum);
  EXPECT_LT(sum, 2 * 100 * 100 * kKiB);
}

TEST(PackArena, ASmallAdapterTakesOnePage) {
  std::vector<int64_t> slabs;
  PackArena arena(CountInto(slabs));
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(arena.Allocate(5000).ok());
  EXPECT_EQ(slabs, std::vector<int64_t>{64 * kKiB});
}

TEST(PackArena, PiecesAreZeroAlignedAndApart) {
  std::vector<int64_t> slabs;
  std::vector<std::shared_ptr<char>> pieces;
  std::vector<size_t> sizes = {1, 100, 0, 70'000, 3 << 20, 64, 9 << 20, 5};
  for (int turn = 0; turn < 2; ++turn) {  // the second gets what the first gave back
    {
      PackArena arena(CountInto(slabs));
      for (const size_t size : sizes) {
        const auto piece = arena.Allocate(static_cast<int64_t>(size));
        ASSERT_TRUE(piece.ok());
        pieces.push_back(*piece);
      }
    }
    for (size_t i = 0; i < sizes.size(); ++i) {  // their arena has gone
      char* piece = pieces[i].get();
      EXPECT_EQ(reinterpret_cast<uintptr_t>(piece) % 64, 0u);
      for (size_t at = 0; at < sizes[i]; ++at) ASSERT_EQ(piece[at], 0) << i << " " << at;
      std::memset(piece, static_cast<int>(i + 1), sizes[i]);
    }
    for (size_t i = 0; i < sizes.size(); ++i) {
      for (size_t at = 0; at < sizes[i]; ++at) ASSERT_EQ(pieces[i].get()[at], i + 1);
    }
    pieces.clear();
  }
}

TEST(PackArena, TakesNothingThatIsRefused) {
  int64_t left = 2;
  PackArena arena([&](int64_t) {
    return left-- > 0 ? absl::OkStatus() : absl::ResourceExhaustedError("no more");
  });
  EXPECT_TRUE(arena.Allocate(60 * kKiB).ok());
  EXPECT_TRUE(arena.Allocate(60 * kKiB).ok());
  const int64_t before = arena.bytes();
  const auto refused = arena.Allocate(60 * kKiB);
  EXPECT_EQ(refused.status().message(), "no more");
  EXPECT_EQ(arena.bytes(), before);
  EXPECT_TRUE(arena.Allocate(1 * kKiB).ok());  // of the slab it has
  EXPECT_TRUE(absl::IsResourceExhausted(arena.Allocate(-1).status()));
  EXPECT_TRUE(absl::IsResourceExhausted(arena.Allocate(int64_t{1} << 60).status()));
}

TEST(PackArena, IsInForceOnItsThreadWhileTheScopeLasts) {
  PackArena outer([](int64_t) { return absl::OkStatus(); });
  PackArena inner([](int64_t) { return absl::OkStatus(); });
  EXPECT_EQ(PackArena::Current(), nullptr);
  {
    const PackArena::Scope scope(&outer);
    {
      const PackArena::Scope nested(&inner);
      EXPECT_EQ(PackArena::Current(), &inner);
    }
    EXPECT_EQ(PackArena::Current(), &outer);
    std::thread([] { EXPECT_EQ(PackArena::Current(), nullptr); }).join();
  }
  EXPECT_EQ(PackArena::Current(), nullptr);
}

}  // namespace
}  // namespace polyad
