#include "server/top_series.h"

#include <gtest/gtest.h>

namespace polyad {
namespace {

TEST(TopSeriesTest, TheBusiestAreShownAndTheRestIsOther) {
  TopSeries series(1, 10);
  series.Add("quiet", {1, 7});
  series.Add("busy", {2, 9});
  series.Promote();
  ASSERT_EQ(series.shown().size(), 1u);
  EXPECT_EQ(series.shown().at("busy")[1], 9);
  EXPECT_EQ(series.other()[1], 7);
}

TEST(TopSeriesTest, WhatIsBeyondTheTrackedIsCountedAllTheSame) {
  TopSeries series(4, 2);
  for (const char* name : {"a", "b", "c", "d"}) series.Add(name, {1});
  series.Promote();
  EXPECT_EQ(series.shown().size(), 2u);
  EXPECT_EQ(series.other()[0], 2);
  series.Add("c", {1});  // it is tracked now, shown next time from zero
  EXPECT_EQ(series.other()[0], 3);
  series.Promote();
  EXPECT_EQ(series.shown().at("c")[0], 0);
  EXPECT_EQ(series.other()[0], 3);
}

TEST(TopSeriesTest, ReservedNamesAreOther) {
  TopSeries series(4, 4);
  series.Add("other", {1});
  series.Add("unknown", {1});
  series.Promote();
  EXPECT_TRUE(series.shown().empty());
  EXPECT_EQ(series.other()[0], 2);
}

}  // namespace
}  // namespace polyad
