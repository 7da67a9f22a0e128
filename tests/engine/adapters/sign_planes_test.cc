#include "engine/adapters/sign_planes.h"

#include <cmath>
#include <random>

#include "gtest/gtest.h"

// Planes of signs: what they stand for, and that least squares' scales are the best.

namespace polyad {
namespace {

constexpr int64_t kOut = 6;
constexpr int64_t kIn = 96;

std::vector<float> Random(uint64_t seed) {
  std::mt19937_64 source(seed);
  std::normal_distribution<float> normal(0, 0.01f);
  std::vector<float> values(static_cast<size_t>(kOut * kIn));
  for (float& value : values) value = normal(source);
  return values;
}

SignPlanes Fit(const std::vector<float>& values, int64_t num_planes, PlaneScale scale) {
  return FitSignPlanes(kOut, kIn, {num_planes, scale, 32}, [&](int64_t row, float* out) {
    std::copy_n(values.begin() + row * kIn, kIn, out);
  });
}

float ScaleAt(const SignPlanes& made, const SignPlane& plane, int64_t row, int64_t col) {
  if (plane.scale.size() == 1) return plane.scale[0];
  return plane.scale[static_cast<size_t>(row * made.groups + col * made.groups / made.in)];
}

std::vector<float> Dense(const SignPlanes& made) {
  std::vector<float> values(static_cast<size_t>(made.out * made.in));
  const int64_t words = (made.in + 31) / 32;
  for (const SignPlane& plane : made.planes) {
    for (int64_t row = 0; row < made.out; ++row) {
      for (int64_t col = 0; col < made.in; ++col) {
        const uint32_t word = plane.bits[static_cast<size_t>(row * words + col / 32)];
        const float sign = (word >> (col % 32) & 1u) != 0 ? 1.0f : -1.0f;
        values[static_cast<size_t>(row * made.in + col)] += sign * ScaleAt(made, plane, row, col);
      }
    }
  }
  return values;
}

double SquaredError(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += std::pow(static_cast<double>(a[i]) - b[i], 2);
  return sum;
}

class SignPlanesOf : public testing::TestWithParam<PlaneScale> {};

TEST_P(SignPlanesOf, OneScaleTimesSignsComesBackExactly) {
  std::vector<float> values = Random(1);
  for (size_t i = 0; i < values.size(); ++i) values[i] = values[i] < 0 ? -0.3f : 0.3f;
  EXPECT_EQ(Dense(Fit(values, 1, GetParam())), values);
}

TEST_P(SignPlanesOf, TwoScalesTimesSignsComeBackExactly) {
  std::vector<float> values = Random(2);
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = (values[i] < 0 ? -0.5f : 0.5f) + (i % 3 == 0 ? 0.125f : -0.125f);
  }
  const SignPlanes made = Fit(values, 2, GetParam());
  EXPECT_LT(SquaredError(Dense(made), values), 1e-12);
}

TEST_P(SignPlanesOf, TheErrorReportedIsTheErrorMadeAndEveryPlaneCutsIt) {
  const std::vector<float> values = Random(3);
  double last = SquaredError(values, std::vector<float>(values.size()));
  for (int64_t num_planes = 1; num_planes <= kMaxPlanes; ++num_planes) {
    const SignPlanes made = Fit(values, num_planes, GetParam());
    const double error = SquaredError(Dense(made), values);
    EXPECT_NEAR(made.squared_error, error, 1e-5 * error);
    EXPECT_LT(error, 0.5 * last);
    last = error;
  }
}

// A bit takes a normal deviate's square down by 2 / pi; with two bits 0.1175 of it stays (Max
// 1960).
TEST(SignPlanes, ErrorsAreThoseOfANormalDistribution) {
  const std::vector<float> values = Random(4);
  const SignPlanes one = Fit(values, 1, PlaneScale::kTensor);
  EXPECT_NEAR(one.squared_error / one.squares, 1 - 2 / M_PI, 0.05);
  const SignPlanes two = Fit(values, 2, PlaneScale::kTensor);
  EXPECT_NEAR(two.squared_error / two.squares, 0.1175, 0.02);
}

TEST_P(SignPlanesOf, NoOtherScaleIsBetter) {
  const std::vector<float> values = Random(5);
  SignPlanes made = Fit(values, 1, GetParam());
  const double best = SquaredError(Dense(made), values);
  for (float& scale : made.planes[0].scale) {
    for (const float factor : {0.98f, 1.02f}) {
      const float kept = scale;
      scale = kept * factor;
      EXPECT_GT(SquaredError(Dense(made), values), best);
      scale = kept;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Scales, SignPlanesOf,
                         testing::Values(PlaneScale::kTensor, PlaneScale::kRow,
                                         PlaneScale::kGroup));

TEST(SignPlanes, ZeroCountsAsPositiveAndAZeroRowHasScaleZero) {
  const SignPlanes made = Fit(std::vector<float>(kOut * kIn), 2, PlaneScale::kRow);
  EXPECT_EQ(made.planes[0].bits[0], 0xffffffffu);
  EXPECT_EQ(made.planes[0].scale[0], 0.0f);
  EXPECT_EQ(made.squared_error, 0.0);
}

TEST(SignPlanes, GroupsAreTheLargestThatFit) {
  EXPECT_EQ(GroupOf(576, 128), 96);
  EXPECT_EQ(GroupOf(1536, 128), 128);
  EXPECT_EQ(GroupOf(64, 65536), 64);
  EXPECT_EQ(GroupOf(80, 128), 80);  // no multiple of 32 divides it: the whole row
}

}  // namespace
}  // namespace polyad
