#include "engine/model/mixture.h"

#include <cmath>
#include <vector>

#include "gtest/gtest.h"

namespace polyad {
namespace {

FloatRows RowsOf(std::vector<float>& values, int64_t cols) {
  return {values.data(), static_cast<int64_t>(values.size()) / cols, cols, cols};
}

std::vector<float> Coefficients(const MixtureRule& rule, FloatRows scores) {
  std::vector<float> coefficients(static_cast<size_t>(scores.rows * scores.cols));
  MixtureCoefficients(rule, scores, coefficients);
  return coefficients;
}

TEST(Mixture, IsTheSoftmaxOfTheLargestScoresExpertByExpert) {
  std::vector<float> scores = {1, 3, 2, 0, 5, -1};
  const std::vector<float> c = Coefficients({3, 2, 0.5f, false}, RowsOf(scores, 3));
  const float low = 1 / (1 + std::exp(2.0f));
  const float lower = 1 / (1 + std::exp(10.0f));
  const std::vector<float> expected = {0, lower, 1 - low, 1 - lower, low, 0};
  ASSERT_EQ(c.size(), expected.size());
  for (size_t i = 0; i < c.size(); ++i) EXPECT_NEAR(c[i], expected[i], 1e-6) << i;
}

TEST(Mixture, CountsNegativeScoresByTheirSizeWhereTheRuleSaysSo) {
  std::vector<float> scores = {-4, 1, 2};
  const std::vector<float> c = Coefficients({3, 1, 1.0f, true}, RowsOf(scores, 3));
  EXPECT_EQ(c, (std::vector<float>{1, 0, 0}));
}

TEST(Mixture, GivesEqualScoresToTheLowerExpert) {
  std::vector<float> scores = {2, 2, 2};
  const std::vector<float> c = Coefficients({3, 2, 1.0f, false}, RowsOf(scores, 3));
  EXPECT_EQ(c, (std::vector<float>{0.5f, 0.5f, 0}));
}

TEST(Mixture, GivesARowTheSameWhateverOtherRowsThereAre) {
  std::vector<float> two = {0.3f, -0.7f, 0.2f, 1.5f};
  std::vector<float> one = {0.2f, 1.5f};
  const MixtureRule rule{2, 2, 0.9f, true};
  const std::vector<float> both = Coefficients(rule, RowsOf(two, 2));
  const std::vector<float> alone = Coefficients(rule, RowsOf(one, 2));
  EXPECT_EQ(both[1], alone[0]);
  EXPECT_EQ(both[3], alone[1]);
}

TEST(Mixture, OverASegmentIsTheMeanOfItsRows) {
  std::vector<float> scores = {1, 2, 0, 4};
  std::vector<float> first = {1, 2};
  std::vector<float> second = {0, 4};
  MixtureRule rule{2, 2, 1.0f, false};
  const std::vector<float> one = Coefficients(rule, RowsOf(first, 2));
  const std::vector<float> other = Coefficients(rule, RowsOf(second, 2));
  rule.over_segment = true;
  EXPECT_EQ(Coefficients(rule, RowsOf(first, 2)), one);
  const std::vector<float> both = Coefficients(rule, RowsOf(scores, 2));
  ASSERT_EQ(both.size(), 4u);
  for (size_t expert = 0; expert < 2; ++expert) {
    EXPECT_NEAR(both[2 * expert], (one[expert] + other[expert]) / 2, 1e-6);
    EXPECT_EQ(both[2 * expert], both[2 * expert + 1]);
  }
}

}  // namespace
}  // namespace polyad
