#include "server/bench_stats.h"

#include <gtest/gtest.h>

namespace polyad {
namespace {

using End = BenchOutcome::End;

BenchTime At(int64_t ms) { return BenchTime{} + std::chrono::milliseconds(ms); }

BenchOutcome Completed(int64_t ttft_ms, int64_t e2el_ms) {
  BenchOutcome outcome;
  outcome.end = End::kCompleted;
  outcome.ttft_us = ttft_ms * 1000;
  outcome.e2el_us = e2el_ms * 1000;
  outcome.tpot_us = 1000;
  outcome.output_tokens = 10;
  return outcome;
}

TEST(BenchTimerTest, EveryTimeCountsFromTheIntendedArrival) {
  BenchTimer timer(At(100));
  timer.Sent(At(150));  // a client that was 50 ms late flatters nobody
  timer.Tokens(1, At(180));
  timer.Tokens(0, At(185));
  timer.Tokens(2, At(200));
  timer.Tokens(2, At(240));
  const BenchOutcome outcome = timer.Finish(At(250));
  EXPECT_EQ(outcome.sent_us, 50'000);
  EXPECT_EQ(outcome.ttft_us, 80'000);
  EXPECT_EQ(outcome.gaps_us, (std::vector<int32_t>{20'000, 40'000}));
  EXPECT_EQ(outcome.tpot_us, 60'000 / 4);
  EXPECT_EQ(outcome.e2el_us, 150'000);
  EXPECT_EQ(outcome.output_tokens, 5);
}

TEST(BenchTimerTest, WhatNeverCameIsAbsent) {
  BenchTimer timer(At(0));
  const BenchOutcome outcome = timer.Finish(At(5));
  EXPECT_EQ(outcome.ttft_us, -1);
  EXPECT_EQ(outcome.tpot_us, -1);
}

TEST(BenchStatsTest, GroupsAddUpToTheTotal) {
  BenchStats stats({.ttft_ms = 100});
  BenchRequest of_a, of_b;
  of_a.model = of_b.model = "lora";
  of_a.tenant = "a";
  of_b.tenant = "b";
  stats.Add(of_a, Completed(50, 200));
  stats.Add(of_a, Completed(150, 200));  // too late to be good
  stats.Add(of_b, Completed(100, 400));
  BenchOutcome refused;
  refused.end = End::kRefused;
  refused.error = "queue full";
  stats.Add(of_b, refused);
  BenchOutcome cancelled;
  cancelled.end = End::kCancelled;
  stats.Add(of_b, cancelled);
  const BenchResult result = stats.Take();
  EXPECT_EQ(result.total.completed, 3);
  EXPECT_EQ(result.total.good, 2);
  EXPECT_EQ(result.total.good_tokens, 20);
  EXPECT_EQ(result.total.Attainment(), 0.5);  // of four: cancels are nobody's failure
  EXPECT_EQ(result.by_tenant.at("a").Attainment(), 0.5);
  EXPECT_EQ(result.by_tenant.at("b").refused, 1);
  EXPECT_EQ(result.by_tenant.at("b").cancelled, 1);
  EXPECT_EQ(result.by_model.at("lora").output_tokens, 30);
  EXPECT_EQ(result.by_tenant.at("a").ttft.count() + result.by_tenant.at("b").ttft.count(),
            result.total.ttft.count());
  EXPECT_EQ(result.lateness.count(), 5);
  EXPECT_EQ(result.first_error, "queue full");
}

TEST(BenchTargetsTest, EveryLimitCountsAndNoneMeansCompleted) {
  EXPECT_TRUE(BenchTargets{}.Met(Completed(1000, 9000)));
  EXPECT_FALSE((BenchTargets{.e2el_ms = 8999}).Met(Completed(1000, 9000)));
  EXPECT_FALSE((BenchTargets{.tpot_ms = 0.9}).Met(Completed(1000, 9000)));
  EXPECT_TRUE(
      (BenchTargets{.ttft_ms = 1000, .tpot_ms = 1, .e2el_ms = 9000}).Met(Completed(1000, 9000)));
  EXPECT_FALSE(BenchTargets{}.Met(BenchOutcome{}));
  EXPECT_EQ(BenchGroup{}.Attainment(), 1.0);
}

}  // namespace
}  // namespace polyad
