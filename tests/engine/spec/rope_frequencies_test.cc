#include "engine/spec/rope_frequencies.h"

#include <cmath>
#include <limits>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace polyad {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

RopeSpec Scaled(RopeScaling scaling, double factor, int64_t original) {
  RopeSpec rope;
  rope.rotary_dim = 16;
  rope.scaling = scaling;
  rope.factor = factor;
  rope.original_max_position = original;
  return rope;
}

// Values of transformers 5.19's _compute_llama3_parameters for head_dim 16, theta 10000, factor 8,
// 1, 4, original 32.
TEST(RopeFrequenciesTest, ScalesAsTransformersDoes) {
  RopeSpec rope = Scaled(RopeScaling::kLlama3, 8.0, 32);
  rope.low_freq_factor = 1.0;
  rope.high_freq_factor = 4.0;
  const std::vector<float> expected = {
      1.0f,           0.0958399773f,   0.0125000002f,   0.00395284733f,
      0.00124999997f, 0.000395284733f, 0.000125000006f, 3.95284733e-05f};
  const std::vector<float> frequencies = RopeFrequencies(rope);
  ASSERT_EQ(frequencies.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_NEAR(frequencies[i], expected[i], 4e-7f * expected[i]) << i;
  }
}

TEST(RopeFrequenciesTest, LinearAndExplicitFactorsDivide) {
  RopeSpec plain;
  plain.rotary_dim = 4;
  RopeSpec linear = plain;
  linear.scaling = RopeScaling::kLinear;
  linear.factor = 4.0;
  RopeSpec factors = plain;
  factors.frequency_factors = {1.0f, 2.0f};
  const std::vector<float> base = RopeFrequencies(plain);
  EXPECT_THAT(base, ElementsAre(1.0f, 0.01f));
  EXPECT_THAT(RopeFrequencies(linear), ElementsAre(0.25f, base[1] / 4.0f));
  EXPECT_THAT(RopeFrequencies(factors), ElementsAre(1.0f, base[1] / 2.0f));
}

// theta * (factor * length / original - (factor - 1)) ^ (dim / (dim - 2)).
TEST(RopeFrequenciesTest, DynamicRaisesThetaWithTheReach) {
  const RopeSpec rope = Scaled(RopeScaling::kDynamic, 4.0, 32);
  const std::vector<float> within = RopeFrequencies(rope, 32);
  EXPECT_EQ(within, RopeFrequencies(Scaled(RopeScaling::kNone, 1.0, 0)));
  EXPECT_EQ(within, RopeFrequencies(rope, 1));
  const std::vector<float> beyond = RopeFrequencies(rope, 128);
  const double theta = 10000.0 * std::pow(13.0, 16.0 / 14.0);
  for (size_t i = 0; i < beyond.size(); ++i) {
    const double expected = std::pow(theta, -static_cast<double>(i) / 8.0);
    EXPECT_NEAR(static_cast<double>(beyond[i]), expected, 2e-6 * expected) << i;
  }
}

// Pairs that turn more than beta_fast times within the original positions keep their frequency,
// those that turn less than beta_slow times are interpolated.
TEST(RopeFrequenciesTest, YarnKeepsTheFastAndInterpolatesTheSlow) {
  const RopeSpec rope = Scaled(RopeScaling::kYarn, 4.0, 4096);
  const std::vector<float> plain = RopeFrequencies(Scaled(RopeScaling::kNone, 1.0, 0));
  const std::vector<float> scaled = RopeFrequencies(rope);
  EXPECT_EQ(scaled[0], plain[0]);
  EXPECT_EQ(scaled[2], plain[2]);
  EXPECT_LT(scaled[4], plain[4]);
  EXPECT_GT(scaled[4], plain[4] / 4.0f);
  EXPECT_NEAR(scaled[7], plain[7] / 4.0f, 1e-7f * plain[7]);
}

TEST(RopeFrequenciesTest, LongRopeTakesItsOtherListBeyondTheOriginal) {
  RopeSpec rope = Scaled(RopeScaling::kLongRope, 4.0, 32);
  rope.rotary_dim = 4;
  rope.frequency_factors = {1.0f, 2.0f};
  rope.long_factors = {4.0f, 8.0f};
  EXPECT_THAT(RopeFrequencies(rope, 32), ElementsAre(1.0f, 1.0f / (2.0f * 100.0f)));
  EXPECT_THAT(RopeFrequencies(rope, 33), ElementsAre(0.25f, 1.0f / (8.0f * 100.0f)));
}

TEST(RopeReachesTest, OnlyScalingsByLengthTellContextsApart) {
  EXPECT_THAT(RopeReaches(Scaled(RopeScaling::kYarn, 4.0, 32), 128), ElementsAre(128));
  EXPECT_THAT(RopeReaches(Scaled(RopeScaling::kLinear, 4.0, 32), 128), ElementsAre(128));
  EXPECT_THAT(RopeReaches(Scaled(RopeScaling::kLongRope, 4.0, 32), 128), ElementsAre(32, 128));
  EXPECT_THAT(RopeReaches(Scaled(RopeScaling::kLongRope, 4.0, 32), 32), ElementsAre(32));
  EXPECT_THAT(RopeReaches(Scaled(RopeScaling::kDynamic, 4.0, 32), 128), ElementsAre(32, 64, 128));
  EXPECT_THAT(RopeReaches(Scaled(RopeScaling::kDynamic, 3.0, 32), 96), ElementsAre(32, 64, 96));
}

TEST(RopeReachesTest, AContextTakesTheFirstThatHoldsIt) {
  const std::vector<int64_t> reaches = {32, 64, 96};
  EXPECT_EQ(RopeChoice(reaches, 1), 0);
  EXPECT_EQ(RopeChoice(reaches, 32), 0);
  EXPECT_EQ(RopeChoice(reaches, 33), 1);
  EXPECT_EQ(RopeChoice(reaches, 96), 2);
  EXPECT_EQ(RopeChoice(reaches, 1000), 2);
  EXPECT_EQ(RopeChoice({}, 7), 0);
}

TEST(ScaledMaxPositionTest, FollowsTheFactorWhereTheFileKeepsTheOldLength) {
  EXPECT_EQ(ScaledMaxPosition(Scaled(RopeScaling::kNone, 1.0, 0), 128), 128);
  EXPECT_EQ(ScaledMaxPosition(Scaled(RopeScaling::kLinear, 4.0, 128), 128), 512);
  EXPECT_EQ(ScaledMaxPosition(Scaled(RopeScaling::kLinear, 0.5, 128), 128), 128);
  EXPECT_EQ(ScaledMaxPosition(Scaled(RopeScaling::kDynamic, 2.5, 100), 100), 250);
  EXPECT_EQ(ScaledMaxPosition(Scaled(RopeScaling::kYarn, 4.0, 32), 100), 128);
  EXPECT_EQ(ScaledMaxPosition(Scaled(RopeScaling::kYarn, 4.0, 32), 200), 200);
  EXPECT_EQ(ScaledMaxPosition(Scaled(RopeScaling::kLlama3, 8.0, 32), 128), 128);
  EXPECT_EQ(ScaledMaxPosition(Scaled(RopeScaling::kLongRope, 4.0, 32), 128), 128);
  EXPECT_EQ(ScaledMaxPosition(Scaled(RopeScaling::kLinear, 1e6, 1 << 20), 1 << 20),
            SpecLimits::kPositions);
}

TEST(TurnAlikeTest, ComparesAnglesNotNames) {
  const RopeSpec plain = Scaled(RopeScaling::kNone, 1.0, 0);
  RopeSpec factors = plain;
  factors.frequency_factors.assign(8, 4.0f);
  const RopeSpec linear = Scaled(RopeScaling::kLinear, 4.0, 128);
  EXPECT_TRUE(TurnAlike(factors, linear, 512));
  EXPECT_FALSE(TurnAlike(plain, linear, 512));
  RopeSpec louder = plain;
  louder.attention_factor = 1.1;
  EXPECT_FALSE(TurnAlike(plain, louder, 512));
  const RopeSpec dynamic = Scaled(RopeScaling::kDynamic, 4.0, 128);
  EXPECT_TRUE(TurnAlike(plain, dynamic, 128));
  EXPECT_FALSE(TurnAlike(plain, dynamic, 512));
}

TEST(CheckRopeTest, RefusesNumbersThatMakeNoRotation) {
  const auto expect_refused = [](RopeSpec rope, const std::string& message) {
    const Status status = CheckRope(rope, 16);
    ASSERT_FALSE(status.ok()) << message;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
  };
  EXPECT_TRUE(CheckRope(Scaled(RopeScaling::kYarn, 4.0, 32), 16).ok());
  RopeSpec rope = Scaled(RopeScaling::kNone, 1.0, 0);
  rope.rotary_dim = 18;
  expect_refused(rope, "rotary dimension");
  rope.rotary_dim = 7;
  expect_refused(rope, "even number");
  expect_refused(Scaled(RopeScaling::kYarn, 4.0, 0), "original_max_position");
  rope = Scaled(RopeScaling::kYarn, 4.0, 32);
  rope.beta_slow = 64.0;
  expect_refused(rope, "beta_fast");
  rope = Scaled(RopeScaling::kYarn, 4.0, 32);
  rope.attention_factor = std::numeric_limits<double>::quiet_NaN();
  expect_refused(rope, "attention_factor");
  rope = Scaled(RopeScaling::kDynamic, 4.0, 32);
  rope.rotary_dim = 2;
  expect_refused(rope, "dynamic");
  rope = Scaled(RopeScaling::kLongRope, 4.0, 32);
  rope.frequency_factors.assign(8, 1.0f);
  expect_refused(rope, "expected one for each of 8 pairs, got 0");
  rope.long_factors.assign(8, -1.0f);
  expect_refused(rope, "positive");
}

}  // namespace
}  // namespace polyad
