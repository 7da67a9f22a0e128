// Gram matrices against sums in fp64.
#include "engine/adapters/gram.h"

#include <gtest/gtest.h>

#include <cmath>

#include "engine/adapters/dense_math.h"
#include "engine/io/float_bits.h"
#include "tests/engine/adapters/random_matrix.h"

namespace polyad {
namespace {

TensorView ViewOf(const Matrix& m) { return {m.values.data(), DType::kF32, m.rows, m.cols}; }

// Of rows' products in fp64, each to within what its sums in fp32 may lose.
void ExpectGram(const std::vector<double>& gram, const Matrix& rows) {
  const double unit = static_cast<double>(kGramPiece) / 16 * 0x1p-24;
  for (int64_t i = 0; i < rows.rows; ++i) {
    for (int64_t j = 0; j < rows.rows; ++j) {
      double expected = 0;
      double size = 0;
      for (int64_t k = 0; k < rows.cols; ++k) {
        const double product = static_cast<double>(rows.At(i, k)) * rows.At(j, k);
        expected += product;
        size += std::abs(product);
      }
      EXPECT_NEAR(gram[static_cast<size_t>(i * rows.rows + j)], expected, unit * size)
          << rows.rows << " x " << rows.cols << " at " << i << ", " << j;
    }
  }
}

// Ranks and depths around tiles of 4 and 16 and pieces of 256 and 512.
TEST(GramTest, SumsEveryPairOfRowsOrOfColumns) {
  for (const int64_t rank : {1, 3, 4, 5, 16, 17, 40}) {
    for (const int64_t depth : {1, 15, 255, 256, 257, 511, 513, 700}) {
      const Matrix rows = RandomMatrix(rank, depth, 5);
      ExpectGram(RowGram(ViewOf(rows)), rows);
      ExpectGram(ColumnGram(ViewOf(Transposed(rows))), rows);
    }
  }
}

TEST(GramTest, ReadsHalvesAndBFloats) {
  const Matrix rows = RandomMatrix(5, 300, 6);
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    const bool half = dtype == DType::kF16;
    Matrix stored(5, 300);
    std::vector<uint16_t> bits;
    for (size_t i = 0; i < rows.values.size(); ++i) {
      bits.push_back(half ? FloatToHalf(rows.values[i]) : FloatToBFloat16(rows.values[i]));
      stored.values[i] = half ? HalfToFloat(bits.back()) : BFloat16ToFloat(bits.back());
    }
    ExpectGram(RowGram({bits.data(), dtype, 5, 300}), stored);
    ExpectGram(ColumnGram({bits.data(), dtype, 5, 300}), Transposed(stored));
  }
}

// Squares past the largest fp32 number, and those that vanish in it.
TEST(GramTest, NumbersWhoseSquaresFp32CannotHold) {
  for (const double size : {1e25, 1e-25}) {
    Matrix rows = RandomMatrix(3, 40, 7);
    Scale(rows, size);
    ExpectGram(RowGram(ViewOf(rows)), rows);
    ExpectGram(ColumnGram(ViewOf(Transposed(rows))), rows);
  }
}

}  // namespace
}  // namespace polyad
