#include "kernels/cuda/sign_bits.h"

#include "gtest/gtest.h"

namespace polyad::cuda {
namespace {

// Lane and bit of an element, by the formula of the A operand in the PTX ISA, section 9.7.14.5.8.
TEST(SignBitsTest, SignsStandWhereFragmentsHaveThem) {
  constexpr int kOut = 19;
  constexpr int kIn = 75;
  const auto sign = [](int row, int col) { return (row * 7 + col * 3) % 5 < 2; };
  std::vector<uint32_t> bits(kOut * 3);
  for (int row = 0; row < kOut; ++row) {
    for (int col = 0; col < kIn; ++col) {
      if (sign(row, col)) bits[static_cast<size_t>(row * 3 + col / 32)] |= 1u << (col % 32);
    }
  }
  const std::vector<uint32_t> words = PackSigns(bits, kOut, kIn);
  ASSERT_EQ(words.size(), 2u * 2u * 32u);
  for (int tile = 0; tile < 4; ++tile) {
    for (int bit = 0; bit < 32 * 32; ++bit) {
      const int lane = bit / 32;
      const int i = bit % 8;
      const bool upper = i < 2 || (4 <= i && i < 6);
      const int row = tile / 2 * 16 + (lane >> 2) + (upper ? 0 : 8);
      const int col = tile % 2 * 64 + bit % 32 / 8 * 16 + lane % 4 * 2 + (i & 1) + (i < 4 ? 0 : 8);
      const bool want = row < kOut && col < kIn && sign(row, col);
      EXPECT_EQ(words[static_cast<size_t>(tile * 32 + lane)] >> (bit % 32) & 1u, want ? 1u : 0u);
    }
  }
}

TEST(SignBitsTest, OverlappingSegmentsGoToLaterLaunches) {
  SignSegment segment;
  segment.row_end = 9;
  segment.out = 70;
  const SignSegment segments[] = {segment, segment};
  const auto launches = PlanSigns(segments, /*exact=*/false);
  ASSERT_EQ(launches.size(), 2u);
  EXPECT_EQ(launches[0].size(), 4u) << "two times 8 rows, two times 64 outputs";
}

}  // namespace
}  // namespace polyad::cuda
