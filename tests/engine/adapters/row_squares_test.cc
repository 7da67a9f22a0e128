// Lengths of changed rows against forming the change.
#include "engine/adapters/row_squares.h"

#include <gtest/gtest.h>

#include "engine/adapters/lowering_ops.h"
#include "tests/engine/adapters/random_matrix.h"
#include "tests/engine/adapters/tiny_spec.h"

namespace polyad {
namespace {

constexpr SiteRef kQuery{0, Site::kQ};

class RandomBase final : public BaseWeights {
 public:
  explicit RandomBase(const ModelSpec& spec) {
    const SiteShape shape = ShapeOf(spec, Site::kQ);
    weight = RandomMatrix(shape.out, shape.in, 1);
  }
  StatusOr<std::vector<float>> Matrix(SiteRef) const override { return weight.values; }
  StatusOr<std::vector<float>> Bias(SiteRef) const override { return std::vector<float>(); }
  StatusOr<NormVectors> Norm(int64_t, NormSite) const override { return NormVectors{}; }

  polyad::Matrix weight{0, 0};
};

// Forty rows: two and a half times the sixteen that are taken together.
ModelSpec FortyRows() {
  ModelSpec spec = TinySpec();
  spec.num_heads = 5;
  return spec;
}

class RowSquaresTest : public ::testing::Test {
 protected:
  // Against |W + b a|^2 in fp64, to fp32 rounding of what the terms weigh.
  void Check(const Matrix& b, const Matrix& a) {
    const auto squares = ChangedRowSquares(context_, kQuery, b, a);
    ASSERT_TRUE(squares.ok()) << squares.status();
    ASSERT_EQ(static_cast<int64_t>(squares->sum.size()), b.rows);
    ASSERT_EQ(static_cast<int64_t>(squares->change.size()), b.rows);
    const Matrix delta = Multiply(b, a);
    for (int64_t i = 0; i < b.rows; ++i) {
      double expected = 0;
      double change = 0;
      double terms = 0;
      for (int64_t j = 0; j < a.cols; ++j) {
        const double w = base_.weight.At(i, j);
        const double d = delta.At(i, j);
        expected += (w + d) * (w + d);
        change += d * d;
        terms += w * w + d * d;
      }
      const auto row = static_cast<size_t>(i);
      EXPECT_NEAR(squares->sum[row], expected, 0x1p-22 * terms) << "row " << i;
      EXPECT_NEAR(squares->change[row], change, 0x1p-21 * change) << "row " << i;
    }
  }

  const ModelSpec spec_ = FortyRows();
  const RandomBase base_{spec_};
  const LoweringContext context_{spec_, &base_};
  const SiteShape shape_ = ShapeOf(spec_, Site::kQ);
};

TEST_F(RowSquaresTest, SmallAndLargeChangesOfAnyRank) {
  for (const int64_t rank : {1, 3, 4}) {
    for (const double size : {1e-3, 1.0, 100.0}) {
      Matrix b = RandomMatrix(shape_.out, rank, 2);
      Scale(b, size);
      Check(b, RandomMatrix(rank, shape_.in, 3));
    }
  }
}

// The squares of a's numbers alone would leave fp32.
TEST_F(RowSquaresTest, FactorsOfVeryDifferentSizes) {
  for (const double size : {1e-15, 1e15}) {
    Matrix b = RandomMatrix(shape_.out, 3, 6);
    Matrix a = RandomMatrix(3, shape_.in, 7);
    Scale(b, 1 / size);
    Scale(a, size);
    Check(b, a);
  }
}

TEST_F(RowSquaresTest, AChangeOfMoreThanHalfTheRankIsFormed) {
  Check(RandomMatrix(shape_.out, shape_.in, 4), RandomMatrix(shape_.in, shape_.in, 5));
}

// Where the change takes almost all of a row away, the terms cancel and what is left must be seen.
TEST_F(RowSquaresTest, AChangeThatTakesARowAwayIsFormed) {
  Matrix a(1, shape_.in);
  for (int64_t j = 0; j < shape_.in; ++j) a.At(0, j) = base_.weight.At(2, j) * (1 + 1e-4f);
  Matrix b(shape_.out, 1);
  b.At(2, 0) = -1;
  const auto squares = ChangedRowSquares(context_, kQuery, b, a);
  ASSERT_TRUE(squares.ok()) << squares.status();
  const double whole = SumOfSquares(base_.weight.Row(2), shape_.in);
  EXPECT_NEAR(squares->sum[2] / whole, 1e-8, 1e-9);
}

}  // namespace
}  // namespace polyad
