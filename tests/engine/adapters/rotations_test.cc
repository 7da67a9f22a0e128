#include "engine/adapters/rotations.h"

#include <cmath>
#include <vector>

#include "gtest/gtest.h"

namespace polyad {
namespace {

constexpr int64_t kSize = 5;

std::vector<float> Numbers(size_t count, float scale) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) {
    values[i] = scale * std::sin(1.0f + 2.7f * static_cast<float>(i));
  }
  return values;
}

std::vector<double> Product(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> product(kSize * kSize, 0.0);
  for (size_t i = 0; i < kSize; ++i) {
    for (size_t j = 0; j < kSize; ++j) {
      for (size_t k = 0; k < kSize; ++k)
        product[i * kSize + j] += a[i * kSize + k] * b[k * kSize + j];
    }
  }
  return product;
}

std::vector<double> Transposed(const std::vector<double>& m) {
  std::vector<double> result(m.size());
  for (size_t i = 0; i < kSize; ++i) {
    for (size_t j = 0; j < kSize; ++j) result[i * kSize + j] = m[j * kSize + i];
  }
  return result;
}

void ExpectIdentity(const std::vector<double>& m, double tolerance) {
  for (size_t i = 0; i < kSize; ++i) {
    for (size_t j = 0; j < kSize; ++j) EXPECT_NEAR(m[i * kSize + j], i == j ? 1.0 : 0.0, tolerance);
  }
}

std::vector<double> SomeSkew(float scale) { return SkewFromUpper(Numbers(10, scale), kSize); }

TEST(Rotations, TheUpperTriangleIsReadRowByRow) {
  const std::vector<float> upper = Numbers(10, 1.0f);
  const std::vector<double> skew = SkewFromUpper(upper, kSize);
  EXPECT_EQ(skew[0 * kSize + 1], upper[0]);
  EXPECT_EQ(skew[0 * kSize + 4], upper[3]);
  EXPECT_EQ(skew[1 * kSize + 2], upper[4]);
  EXPECT_EQ(skew[2 * kSize + 1], -static_cast<double>(upper[4]));
  EXPECT_EQ(skew[3 * kSize + 3], 0.0);
}

TEST(Rotations, TheSkewPartOfASkewMatrixIsItself) {
  const std::vector<double> skew = SomeSkew(1.0f);
  const std::vector<float> stored(skew.begin(), skew.end());
  EXPECT_EQ(SkewPart(stored, kSize), skew);
}

TEST(Rotations, TheCayleyTransformIsARotationWhateverTheSize) {
  for (const float scale : {0.1f, 1.0f, 40.0f}) {
    const std::vector<double> rotation = CayleyTransform(SomeSkew(scale), kSize);
    ExpectIdentity(Product(rotation, Transposed(rotation)), 1e-12);
  }
}

TEST(Rotations, TheCayleyTransformSolvesItsDefinition) {
  const std::vector<double> skew = SomeSkew(0.7f);
  std::vector<double> plus = skew;
  std::vector<double> minus(skew.size());
  for (size_t i = 0; i < skew.size(); ++i) {
    const double one = i % (kSize + 1) == 0 ? 1.0 : 0.0;
    plus[i] = one + skew[i];
    minus[i] = one - skew[i];
  }
  const std::vector<double> back = Product(CayleyTransform(skew, kSize), plus);
  for (size_t i = 0; i < back.size(); ++i) EXPECT_NEAR(back[i], minus[i], 1e-12);
}

// The series turns the other way: it expands (I + Q) (I - Q)^-1.
TEST(Rotations, TheLongSeriesIsTheInverseOfTheTransform) {
  const std::vector<double> skew = SomeSkew(0.1f);
  ExpectIdentity(Product(CayleySeries(skew, kSize, 40), CayleyTransform(skew, kSize)), 1e-12);
}

TEST(Rotations, TheShortSeriesAreTheirTerms) {
  const std::vector<double> q = SomeSkew(0.5f);
  const std::vector<double> q2 = Product(q, q);
  const std::vector<double> q3 = Product(q2, q);
  ExpectIdentity(CayleySeries(q, kSize, 1), 0.0);
  EXPECT_EQ(CayleySeries(q, kSize, 3), CayleySeries(q, kSize, 4));
  const std::vector<double> two = CayleySeries(q, kSize, 2);
  const std::vector<double> four = CayleySeries(q, kSize, 4);
  for (size_t i = 0; i < q.size(); ++i) {
    const double one = i % (kSize + 1) == 0 ? 1.0 : 0.0;
    EXPECT_NEAR(two[i], one + 2 * q[i], 1e-15);
    EXPECT_NEAR(four[i], one + 2 * q[i] + 2 * q2[i] + q3[i], 1e-14);
  }
}

}  // namespace
}  // namespace polyad
