#include "server/queue_estimate.h"

#include <gtest/gtest.h>

namespace polyad {
namespace {

constexpr int64_t kSecond = 1'000'000;

TEST(QueueEstimateTest, KnowsNothingUntilSomeHadTheirTurn) {
  QueueEstimate queue;
  for (int i = 0; i < 5; ++i) queue.Arrive(0);
  EXPECT_EQ(queue.GapMicros(kSecond), 0);
  queue.Leave(false, kSecond);
  EXPECT_EQ(queue.num_queued(), 4);
  EXPECT_EQ(queue.GapMicros(kSecond), 0) << "who gives up has had no turn";
}

TEST(QueueEstimateTest, TurnsAreAsFarApartAsTheyWere) {
  QueueEstimate queue;
  for (int i = 0; i < 100; ++i) queue.Arrive(0);
  for (int i = 1; i <= 50; ++i) queue.Leave(true, i * kSecond / 10);
  EXPECT_NEAR(queue.GapMicros(5 * kSecond), 0.1 * kSecond, 0.01 * kSecond);
}

TEST(QueueEstimateTest, AnEmptyQueueTakesNoTime) {
  QueueEstimate queue;
  for (int i = 0; i < 10; ++i) {
    queue.Arrive(i * 60 * kSecond);
    queue.Leave(true, i * 60 * kSecond + 1000);
  }
  EXPECT_LE(queue.GapMicros(541 * kSecond), 1000);
}

TEST(QueueEstimateTest, WhoeverWaitsWithoutATurnMakesTheGapGrow) {
  QueueEstimate queue;
  for (int i = 0; i < 10; ++i) queue.Arrive(0);
  for (int i = 1; i <= 5; ++i) queue.Leave(true, i * kSecond / 100);
  const double before = queue.GapMicros(kSecond / 10);
  EXPECT_GT(queue.GapMicros(10 * kSecond), 50 * before);
}

}  // namespace
}  // namespace polyad
