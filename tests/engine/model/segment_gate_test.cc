#include "engine/model/segment_gate.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace polyad {
namespace {

constexpr int64_t kCols = 37;

double Sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

TEST(SegmentGate, IsTheMeanOfTheSigmoidsNotTheSigmoidOfTheMean) {
  std::vector<float> weight(kCols, 0.5f);
  std::vector<float> rows(2 * kCols, 0.25f);
  for (int64_t i = 0; i < kCols; ++i) rows[static_cast<size_t>(kCols + i)] = -0.5f;
  const ActivationRows x{rows.data(), DType::kF32, 2, kCols, kCols};
  const double expected = (Sigmoid(0.125 * kCols + 1) + Sigmoid(-0.25 * kCols + 1)) / 2;
  EXPECT_NEAR(MeanGate(weight, 1.0f, x), expected, 1e-6);
  EXPECT_NEAR(MeanGate(weight, 1.0f, x.Slice(1, 2)), Sigmoid(-0.25 * kCols + 1), 1e-6);
}

TEST(SegmentGate, ReadsActivationsAsTheyAreStored) {
  std::vector<float> weight(kCols);
  std::vector<uint16_t> bits(kCols);
  double dot = 0;
  for (size_t i = 0; i < weight.size(); ++i) {
    weight[i] = 0.01f * static_cast<float>(i);
    bits[i] = i % 2 == 0 ? 0x3f80 : 0xbf00;  // 1 and -0.5
    dot += static_cast<double>(weight[i]) * (i % 2 == 0 ? 1.0 : -0.5);
  }
  const ActivationRows x{bits.data(), DType::kBF16, 1, kCols, kCols};
  EXPECT_NEAR(MeanGate(weight, 0.0f, x), Sigmoid(dot), 1e-6);
}

TEST(SegmentGate, ScalesOnlyTheColumnsGiven) {
  std::vector<float> values = {1, 2, 3, 4, 5, 6};
  ScaleBy(2.0f, FloatRows{values.data(), 2, 3, 3}.Columns(1, 1));
  EXPECT_EQ(values, (std::vector<float>{1, 4, 3, 4, 10, 6}));
}

TEST(TokenRouter, ATokenBelowTheThresholdSkipsItsSubLayer) {
  TokenRouter router;
  router.weight = {1.0f, 2.0f};
  router.threshold = 0.5f;
  std::vector<float> n = {0.5f, 0.0f, 0.0f, 0.2f, 1.0f, 1.0f};  // scores 0.5, 0.4 and 3
  std::vector<float> o = {1, -2, 3, 4, 5, 6};
  RouteRows(router, {n.data(), DType::kF32, 3, 2, 2}, {o.data(), 3, 2, 2});
  EXPECT_NEAR(o[0], Sigmoid(0.5), 1e-6);
  EXPECT_NEAR(o[1], -2 * Sigmoid(0.5), 1e-6);
  EXPECT_EQ(o[2], 0.0f);
  EXPECT_EQ(o[3], 0.0f);
  EXPECT_NEAR(o[5], 6 * Sigmoid(3.0), 1e-6);
}

}  // namespace
}  // namespace polyad
