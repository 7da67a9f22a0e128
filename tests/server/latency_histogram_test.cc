#include "server/latency_histogram.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

namespace polyad {
namespace {

TEST(LatencyHistogramTest, SmallValuesAreExactAndRanksInterpolate) {
  LatencyHistogram times;
  EXPECT_EQ(times.PercentileMs(50), 0);
  for (int us : {1000, 2000, 3, 2047}) times.Add(us);
  EXPECT_EQ(times.count(), 4);
  EXPECT_EQ(times.PercentileMs(0), 0.003);
  EXPECT_EQ(times.PercentileMs(50), 1.5);
  EXPECT_EQ(times.PercentileMs(100), 2.047);
  EXPECT_DOUBLE_EQ(times.MeanMs(), 5.050 / 4);
}

TEST(LatencyHistogramTest, LargeValuesKeepThreeDigits) {
  std::mt19937_64 random(7);
  std::lognormal_distribution<double> draw(10, 2);
  std::vector<int64_t> values;
  LatencyHistogram times;
  double sum = 0;
  for (int i = 0; i < 20001; ++i) {
    values.push_back(static_cast<int64_t>(draw(random)));
    times.Add(values.back());
    sum += static_cast<double>(values.back());
  }
  std::sort(values.begin(), values.end());
  for (int percent : {1, 25, 50, 90, 99, 100}) {
    const auto exact = static_cast<double>(values[static_cast<size_t>(200 * percent)]);
    EXPECT_NEAR(times.PercentileMs(percent) * 1e3, exact, exact / 1024) << percent;
  }
  EXPECT_NEAR(times.MeanMs() * 1e3, sum / 20001, 1e-6 * sum / 20001);
}

TEST(LatencyHistogramTest, MergingIsAddingAll) {
  LatencyHistogram left, right, both;
  for (int i = 0; i < 100; ++i) {
    (i % 3 == 0 ? left : right).Add(i * i * i);
    both.Add(i * i * i);
  }
  left.Merge(right);
  EXPECT_EQ(left.count(), 100);
  for (int percent : {0, 10, 50, 99}) {
    EXPECT_EQ(left.PercentileMs(percent), both.PercentileMs(percent));
  }
  EXPECT_DOUBLE_EQ(left.DeviationMs(), both.DeviationMs());
}

TEST(LatencyHistogramTest, OutliersAreClampedNotLost) {
  LatencyHistogram times;
  times.Add(-5);
  times.Add(INT64_MAX);
  EXPECT_EQ(times.count(), 2);
  EXPECT_EQ(times.PercentileMs(0), 0);
  EXPECT_NEAR(times.PercentileMs(100), LatencyHistogram::kLargestUs / 1e3,
              LatencyHistogram::kLargestUs / 1e3 / 1024);
}

TEST(LatencyHistogramTest, DeviationIsThePopulations) {
  LatencyHistogram times;
  for (int us : {2000, 4000, 4000, 4000, 5000, 5000, 7000, 9000}) times.Add(us);
  EXPECT_NEAR(times.DeviationMs(), 2.0, 1e-9);
}

}  // namespace
}  // namespace polyad
