#include "engine/cache/swap_cost.h"

#include <gtest/gtest.h>

namespace polyad {
namespace {

TEST(SwapCost, CopyingPaysUntilComputingIsSeenToBeCheaper) {
  SwapCost cost;
  EXPECT_TRUE(cost.RestorePays());
  cost.SawRestore(10, 50'000);  // 5 ms a block: a slow disk
  EXPECT_TRUE(cost.RestorePays()) << "no step was seen";
  cost.SawStep(100, 10'000);  // 1.6 ms for a block's tokens
  EXPECT_FALSE(cost.RestorePays());
  for (int i = 0; i < 50; ++i) cost.SawRestore(10, 1'000);
  EXPECT_TRUE(cost.RestorePays());
}

TEST(SwapCost, ADiskThatWasSlowIsTriedAgain) {
  SwapCost cost;
  cost.SawRestore(1, 10'000);
  cost.SawStep(100, 10'000);
  EXPECT_FALSE(cost.RestorePays());
  int num_steps = 0;
  for (; !cost.RestorePays() && num_steps < 10'000; ++num_steps) cost.SawStep(100, 10'000);
  EXPECT_GT(num_steps, 1000);
  EXPECT_LT(num_steps, 5000);
}

TEST(SwapCost, StepsOfFewRowsSayNothingAboutPrompts) {
  SwapCost cost;
  cost.SawRestore(1, 1'000);
  cost.SawStep(1, 100);
  EXPECT_TRUE(cost.RestorePays());
  cost.SawStep(100, 100);
  EXPECT_FALSE(cost.RestorePays());
}

}  // namespace
}  // namespace polyad
