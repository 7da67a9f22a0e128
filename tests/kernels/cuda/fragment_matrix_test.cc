// Packed weights against the PTX ISA's formula for the A operand of mma.m16n8k16, written here as
// section 9.7.14.5.8 has it.

#include "kernels/cuda/fragment_matrix.h"

#include "gtest/gtest.h"
#include "tests/kernels/op_inputs.h"

namespace polyad::test {
namespace {

TEST(FragmentMatrixTest, ElementsStandWhereLanesReadThem) {
  constexpr int kRows = 37;  // three tiles of rows, two of columns, none whole but the first
  constexpr int kCols = 21;
  const auto element = [](int64_t row, int64_t col) {
    return row < kRows && col < kCols ? static_cast<float>(row * kCols + col) / 8.0f : -1.0f;
  };
  const std::vector<uint16_t> packed = cuda::PackFragments(kRows, kCols, element);
  ASSERT_EQ(packed.size(), 3u * 2u * 256u);
  for (int tile = 0; tile < 6; ++tile) {
    for (int lane = 0; lane < 32; ++lane) {
      for (int i = 0; i < 8; ++i) {
        const bool upper = i < 2 || (4 <= i && i < 6);
        const int row = tile / 2 * 16 + (lane >> 2) + (upper ? 0 : 8);
        const int col = tile % 2 * 16 + lane % 4 * 2 + (i & 1) + (i < 4 ? 0 : 8);
        const float want = row < kRows && col < kCols ? element(row, col) : 0.0f;
        EXPECT_EQ(packed[static_cast<size_t>((tile * 32 + lane) * 8 + i)], Bf16Bits(want))
            << "tile " << tile << " lane " << lane << " a" << i;
      }
    }
  }
}

}  // namespace
}  // namespace polyad::test
