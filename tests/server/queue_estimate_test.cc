#include "server/queue_estimate.h"

#include <gtest/gtest.h>

namespace polyad {
namespace {

constexpr int64_t kSecond = 1'000'000;

// One whose turn comes and who ends `ran_us` after, at `now_us`.
void TurnAndEnd(QueueEstimate& queue, int64_t ran_us, int64_t now_us) {
  queue.Begin(now_us - ran_us);
  queue.End(ran_us, now_us);
}

TEST(QueueEstimateTest, KnowsNothingUntilTimeHasPassed) {
  QueueEstimate queue(4);
  for (int i = 0; i < 5; ++i) queue.Arrive(0);
  EXPECT_EQ(queue.GapMicros(0), 0);
  queue.Begin(0);
  EXPECT_EQ(queue.num_queued(), 4);
  EXPECT_EQ(queue.GapMicros(0), 0) << "a turn tells nothing: there was a free place";
}

TEST(QueueEstimateTest, TurnsAreAsFarApartAsEndsWere) {
  QueueEstimate queue(4);
  for (int i = 0; i < 200; ++i) queue.Arrive(0);
  for (int i = 1; i <= 100; ++i) TurnAndEnd(queue, kSecond / 10, i * kSecond / 10);
  EXPECT_NEAR(queue.GapMicros(10 * kSecond), 0.1 * kSecond, 0.01 * kSecond);
}

TEST(QueueEstimateTest, BeforeAnyoneWaitedPlacesAndDurationsTell) {
  QueueEstimate queue(4);
  for (int64_t i = 0; i < 20; ++i) {
    queue.Arrive(i * kSecond);
    queue.Begin(i * kSecond);
    queue.End(kSecond, (i + 1) * kSecond);
  }
  EXPECT_NEAR(queue.GapMicros(20 * kSecond), kSecond / 4, 1);
}

TEST(QueueEstimateTest, AnEmptyQueueTakesNoTime) {
  QueueEstimate queue(4);
  for (int64_t i = 0; i < 10; ++i) {
    queue.Arrive(i * 60 * kSecond);
    queue.Begin(i * 60 * kSecond + 1000);
    queue.End(1000, i * 60 * kSecond + 2000);
  }
  EXPECT_LE(queue.GapMicros(541 * kSecond), 1000);
}

// Four clients that ask again at once: who asks waits for his prompt to be read, while another's
// request ends, but never for a place.
TEST(QueueEstimateTest, WhoWaitsWithPlacesFreeTellsNothing) {
  QueueEstimate queue(4);
  int64_t now_us = 0;
  for (int i = 0; i < 4; ++i) queue.Arrive(now_us);
  for (int i = 0; i < 4; ++i) queue.Begin(now_us);
  for (int round = 0; round < 20; ++round) {
    now_us += kSecond;
    for (int i = 0; i < 4; ++i) {
      queue.End(kSecond, now_us += 1000);
      queue.Arrive(now_us += 1000);
    }
    for (int i = 0; i < 4; ++i) queue.Begin(now_us);
  }
  EXPECT_NEAR(queue.GapMicros(now_us), kSecond / 4, 1);
}

TEST(QueueEstimateTest, WhoeverWaitsWithoutAnEndMakesTheGapGrow) {
  QueueEstimate queue(4);
  for (int i = 0; i < 10; ++i) queue.Arrive(0);
  for (int i = 1; i <= 5; ++i) TurnAndEnd(queue, kSecond / 100, i * kSecond / 100);
  const double before = queue.GapMicros(kSecond / 10);
  EXPECT_GT(queue.GapMicros(10 * kSecond), 50 * before);
}

}  // namespace
}  // namespace polyad
