// The load-time algebra against its definitions.
#include "engine/adapters/dense_math.h"

#include <algorithm>
#include <cmath>

#include "gtest/gtest.h"
#include "tests/engine/adapters/random_matrix.h"

namespace polyad {
namespace {

double LargestDifference(const Matrix& a, const Matrix& b) {
  EXPECT_EQ(a.rows, b.rows);
  EXPECT_EQ(a.cols, b.cols);
  double worst = 0;
  for (size_t i = 0; i < a.values.size(); ++i) {
    worst = std::max(worst,
                     std::abs(static_cast<double>(a.values[i]) - static_cast<double>(b.values[i])));
  }
  return worst;
}

Matrix Identity(int64_t n) {
  Matrix m(n, n);
  for (int64_t i = 0; i < n; ++i) m.At(i, i) = 1;
  return m;
}

double SquaredNorm(const Matrix& m) {
  double sum = 0;
  for (const float value : m.values) sum += static_cast<double>(value) * static_cast<double>(value);
  return sum;
}

TEST(DenseMath, ProductsFollowTheirDefinition) {
  const Matrix a(2, 3, {1, 2, 3, 4, 5, 6});
  const Matrix b(3, 2, {1, -1, 0, 2, 2, 1});
  EXPECT_EQ(Multiply(a, b).values, (std::vector<float>{7, 6, 16, 12}));
  EXPECT_EQ(MultiplyTransposed(a, Transposed(b)).values, Multiply(a, b).values);
  EXPECT_EQ(Columns(a, 1, 3).values, (std::vector<float>{2, 3, 5, 6}));
}

TEST(DenseMath, OrthonormalColumnsSpanTheFirstColumns) {
  const Matrix m = RandomMatrix(40, 17, 1);
  const Matrix q = OrthonormalColumns(m, 9);
  EXPECT_LT(LargestDifference(Multiply(Transposed(q), q), Identity(9)), 1e-6);
  const Matrix first = Columns(m, 0, 9);
  EXPECT_LT(LargestDifference(Multiply(q, Multiply(Transposed(q), first)), first), 1e-5);
}

TEST(DenseMath, ADependentColumnBecomesZero) {
  Matrix m = RandomMatrix(10, 3, 2);
  for (int64_t i = 0; i < 10; ++i) m.At(i, 1) = 2 * m.At(i, 0);
  const Matrix q = OrthonormalColumns(m, 3);
  for (int64_t i = 0; i < 10; ++i) EXPECT_EQ(q.At(i, 1), 0);
}

TEST(DenseMath, HouseholderSpansTheSameWithEachColumnTurnedAgainstItsFirstElement) {
  const Matrix m = RandomMatrix(30, 7, 5);
  const Matrix q = HouseholderQ(m);
  EXPECT_LT(LargestDifference(Multiply(Transposed(q), q), Identity(7)), 1e-6);
  const Matrix r = Multiply(Transposed(q), m);
  EXPECT_LT(LargestDifference(Multiply(q, r), m), 1e-5);
  EXPECT_LT(r.At(0, 0) * m.At(0, 0), 0);
  for (int64_t i = 0; i < 7; ++i) {
    for (int64_t j = 0; j < i; ++j) EXPECT_NEAR(r.At(i, j), 0, 1e-5);
  }
}

class Singular : public testing::TestWithParam<std::pair<int64_t, int64_t>> {};

// A known spectrum: m = U diag(n, n-1, .., 1) V'.
TEST_P(Singular, PartsCarryTheLargestOrSmallestValues) {
  const auto [rows, cols] = GetParam();
  const int64_t side = std::min(rows, cols);
  Matrix u = OrthonormalColumns(RandomMatrix(rows, side, 3), side);
  const Matrix v = OrthonormalColumns(RandomMatrix(cols, side, 4), side);
  std::vector<float> spectrum(static_cast<size_t>(side));
  for (int64_t i = 0; i < side; ++i)
    spectrum[static_cast<size_t>(i)] = static_cast<float>(side - i);
  ScaleColumns(u, spectrum);
  const Matrix m = MultiplyTransposed(u, v);
  const int64_t count = side / 3;
  const FactorPair top = SingularPart(m, count, /*largest=*/true);
  const Matrix expected = MultiplyTransposed(Columns(u, 0, count), Columns(v, 0, count));
  EXPECT_LT(LargestDifference(Multiply(top.left, top.right), expected), 1e-4);
  const FactorPair bottom = SingularPart(m, count, /*largest=*/false);
  const Matrix tail =
      MultiplyTransposed(Columns(u, side - count, side), Columns(v, side - count, side));
  EXPECT_LT(LargestDifference(Multiply(bottom.left, bottom.right), tail), 1e-4);
  const FactorPair all = SingularPart(m, side, true);
  EXPECT_LT(LargestDifference(Multiply(all.left, all.right), m), 1e-4 * std::sqrt(SquaredNorm(m)));
}

INSTANTIATE_TEST_SUITE_P(Shapes, Singular,
                         testing::Values(std::pair{60, 24}, std::pair{24, 60}, std::pair{33, 33},
                                         std::pair{3, 4}));

TEST(DenseMath, RepeatedAndZeroSingularValuesAreNoTrouble) {
  const FactorPair half = SingularPart(Identity(12), 6, true);
  EXPECT_NEAR(SquaredNorm(Multiply(half.left, half.right)), 6, 1e-5);
  const FactorPair none = SingularPart(Matrix(8, 5), 2, true);
  EXPECT_EQ(SquaredNorm(Multiply(none.left, none.right)), 0);
}

}  // namespace
}  // namespace polyad
