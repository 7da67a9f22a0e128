#include "server/tenant_gate.h"

#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <vector>

#include "server/quota_error.h"

namespace polyad {
namespace {

using PassPtr = std::unique_ptr<TenantGate::Pass>;
constexpr int64_t kSecond = 1'000'000;

TenantGate::Ask Ask(const TenantLimits& limits, int64_t num_tokens = 10,
                    const std::string& tenant = "alice") {
  return {.tenant = tenant, .limits = limits, .num_tokens = num_tokens, .num_bytes = 100};
}

struct Gate {
  explicit Gate(const TenantGate::Options& options = {}) : gate(options, clock) {}
  PassPtr MustEnter(const TenantGate::Ask& ask) {
    StatusOr<PassPtr> pass = gate.Enter(ask);
    EXPECT_TRUE(pass.ok()) << pass.status();
    return pass.ok() ? *std::move(pass) : nullptr;
  }
  Status Refusal(const TenantGate::Ask& ask) { return gate.Enter(ask).status(); }

  FakeClock clock;
  TenantGate gate;
};

TEST(TenantGateTest, RequestsAtATimeAreCounted) {
  Gate gate;
  const TenantLimits limits{.max_requests = 2};
  PassPtr first = gate.MustEnter(Ask(limits));
  const PassPtr second = gate.MustEnter(Ask(limits));
  EXPECT_EQ(BlamedQuota(gate.Refusal(Ask(limits))), "max_requests");
  EXPECT_NE(gate.MustEnter(Ask(limits, 10, "bob")), nullptr) << "another tenant's quota";
  gate.clock.AdvanceMicros(4 * kSecond);
  first->Begin();
  first->SetUsed(5);
  first.reset();
  const PassPtr third = gate.MustEnter(Ask(limits));
  // A request took 4 s and two are under way: the next should end in 2 s.
  EXPECT_NEAR(static_cast<double>(RetryMillis(gate.Refusal(Ask(limits)))), 2000, 10);
}

TEST(TenantGateTest, WaitingRequestsAreCountedUntilTheyBegin) {
  Gate gate;
  const TenantLimits limits{.max_queued = 1};
  const PassPtr first = gate.MustEnter(Ask(limits));
  EXPECT_EQ(BlamedQuota(gate.Refusal(Ask(limits))), "max_queued");
  first->Begin();
  first->Begin();  // each of its choices says so
  EXPECT_NE(gate.MustEnter(Ask(limits)), nullptr);
  EXPECT_EQ(gate.gate.counts().queued_requests, 0);
}

TEST(TenantGateTest, TokensComeAtTheTenantsRate) {
  Gate gate;
  const TenantLimits limits{.tokens_per_second = 100, .burst_tokens = 300};
  PassPtr first = gate.MustEnter(Ask(limits, 250));
  const Status refused = gate.Refusal(Ask(limits, 100));
  EXPECT_EQ(BlamedQuota(refused), "tokens_per_second");
  EXPECT_NEAR(static_cast<double>(RetryMillis(refused)), 500, 2);
  gate.clock.AdvanceMicros(RetryMillis(refused) * 1000);
  EXPECT_NE(gate.MustEnter(Ask(limits, 100)), nullptr) << "what it said is so";
}

TEST(TenantGateTest, WhatARequestDidNotUseIsGivenBack) {
  Gate gate;
  const TenantLimits limits{.tokens_per_second = 1, .burst_tokens = 300};
  PassPtr first = gate.MustEnter(Ask(limits, 300));
  EXPECT_FALSE(gate.Refusal(Ask(limits, 200)).ok());
  first->SetUsed(100);
  first.reset();
  PassPtr second = gate.MustEnter(Ask(limits, 200));
  EXPECT_FALSE(gate.Refusal(Ask(limits, 2)).ok());
  second.reset();  // it never ran
  EXPECT_NE(gate.MustEnter(Ask(limits, 200)), nullptr);
}

TEST(TenantGateTest, WhatCostsMoreThanTheBucketPassesAFullOneAndLeavesADebt) {
  Gate gate;
  const TenantLimits limits{.tokens_per_second = 10};
  PassPtr large = gate.MustEnter(Ask(limits, 1000));
  large->SetUsed(1000);
  large.reset();
  const Status refused = gate.Refusal(Ask(limits, 1));
  EXPECT_NEAR(static_cast<double>(RetryMillis(refused)), 90'100, 10);
  gate.clock.AdvanceMicros(3600 * kSecond);
  EXPECT_NE(gate.MustEnter(Ask(limits, 1000)), nullptr);
}

TEST(TenantGateTest, TheServersQueueIsBoundedInTokensAndBytes) {
  Gate gate({.max_queued_tokens = 100, .max_held_bytes = 250});
  PassPtr first = gate.MustEnter(Ask({}, 1000));  // an empty queue takes anything
  EXPECT_EQ(gate.Refusal(Ask({}, 1, "bob")).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(BlamedQuota(gate.Refusal(Ask({}, 1, "bob"))), "");
  first->Begin();
  EXPECT_EQ(gate.gate.counts().queued_tokens, 0);
  const PassPtr second = gate.MustEnter(Ask({}, 100, "bob"));
  EXPECT_EQ(gate.gate.counts().held_bytes, 200);
  EXPECT_NE(gate.Refusal(Ask({}, 0, "bob")).message().find("bytes"), std::string::npos);
  first.reset();
  EXPECT_NE(gate.MustEnter(Ask({}, 0, "bob")), nullptr);
}

// Ten requests of alice's wait, and one ends every 0.1 s.
std::vector<PassPtr> BusyQueue(Gate& gate) {
  std::vector<PassPtr> passes;
  for (int i = 0; i < 110; ++i) passes.push_back(gate.MustEnter(Ask({})));
  for (size_t i = 0; i < 100; ++i) {
    passes[i]->Begin();
    gate.clock.AdvanceMicros(kSecond / 10);
    passes[i].reset();
  }
  return passes;
}

TEST(TenantGateTest, ADeadlineShorterThanTheWaitIsRefusedAtOnce) {
  Gate gate({.num_places = 1});
  const std::vector<PassPtr> passes = BusyQueue(gate);
  TenantGate::Ask ask = Ask({});
  ask.deadline_us = gate.clock.NowMicros() + kSecond / 2;
  const Status refused = gate.Refusal(ask);
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NEAR(static_cast<double>(RetryMillis(refused)), 1100, 60);
  ask.deadline_us = gate.clock.NowMicros() + 2 * kSecond;
  EXPECT_NE(gate.MustEnter(ask), nullptr);
  EXPECT_NEAR(static_cast<double>(gate.gate.RetryMillisOf("alice")), 1100, 60);
}

TEST(TenantGateTest, AQueueThatWouldTakeTooLongTakesNoMore) {
  Gate shorter({.max_wait_us = kSecond, .num_places = 1});
  const std::vector<PassPtr> passes = BusyQueue(shorter);
  const Status refused = shorter.Refusal(Ask({}));
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(refused.message().find("at most 1000 ms"), std::string::npos) << refused;
  EXPECT_NEAR(static_cast<double>(RetryMillis(refused)), 1100, 60);
  EXPECT_NE(shorter.MustEnter(Ask({}, 10, "bob")), nullptr) << "his turn comes sooner";
  Gate longer({.max_wait_us = 2 * kSecond, .num_places = 1});
  const std::vector<PassPtr> others = BusyQueue(longer);
  EXPECT_NE(longer.MustEnter(Ask({})), nullptr);
}

// A server of sixteen places, first come first served, that takes longer the more run at a time.
class PlacesServer {
 public:
  static constexpr size_t kPlaces = 16;

  explicit PlacesServer(Gate& gate) : gate_(gate) {}

  void Arrive() {
    StatusOr<PassPtr> pass = gate_.gate.Enter(Ask({}));
    if (pass.ok()) waiting_.push_back({gate_.clock.NowMicros(), *std::move(pass)});
    FillPlaces();
  }
  // Everything that happens until then.
  void RunUntil(int64_t until_us) {
    while (!running_.empty() && running_.begin()->first <= until_us) {
      gate_.clock.AdvanceMicros(running_.begin()->first - gate_.clock.NowMicros());
      running_.erase(running_.begin());
      ++num_ended;
      FillPlaces();
    }
    gate_.clock.AdvanceMicros(until_us - gate_.clock.NowMicros());
  }

  int64_t longest_wait_us = 0;
  int64_t num_ended = 0;

 private:
  struct Waiting {
    int64_t came_us;
    PassPtr pass;
  };

  void FillPlaces() {
    while (running_.size() < kPlaces && !waiting_.empty()) {
      const int64_t now_us = gate_.clock.NowMicros();
      longest_wait_us = std::max(longest_wait_us, now_us - waiting_.front().came_us);
      waiting_.front().pass->Begin();
      const auto others = static_cast<int64_t>(running_.size());
      running_.emplace(now_us + kSecond / 5 + others * kSecond / 30,
                       std::move(waiting_.front().pass));
      waiting_.pop_front();
    }
  }

  Gate& gate_;
  std::deque<Waiting> waiting_;
  std::multimap<int64_t, PassPtr> running_;
};

// Ten times what it can do, on a server that nobody used before, that few did, that was just full.
TEST(TenantGateTest, InAFloodWhoeverIsLetInWaitsNoLongerThanTheBound) {
  for (const int64_t gap_before_us : {int64_t{0}, kSecond, kSecond / 20}) {
    Gate gate({.max_wait_us = 5 * kSecond, .num_places = PlacesServer::kPlaces});
    PlacesServer server(gate);
    int64_t now_us = gate.clock.NowMicros();
    for (int i = 0; gap_before_us > 0 && i < 400; ++i) {
      server.RunUntil(now_us += gap_before_us);
      server.Arrive();
    }
    const int64_t ended_before = server.num_ended;
    constexpr int64_t kFlood = 60 * kSecond;
    for (int64_t passed_us = 0; passed_us < kFlood; passed_us += kSecond / 230) {
      server.RunUntil(now_us + passed_us);
      server.Arrive();
    }
    EXPECT_LE(server.longest_wait_us, 5 * kSecond) << gap_before_us;
    EXPECT_GE(server.longest_wait_us, 3 * kSecond) << gap_before_us;
    EXPECT_GE(server.num_ended - ended_before, 60 * 22) << "23 a second with every place taken";
  }
}

TEST(TenantGateTest, OthersRequestsDoNotMakeATenantWaitLongerThanItsShare) {
  Gate gate({.num_places = 1});
  const std::vector<PassPtr> passes = BusyQueue(gate);
  TenantGate::Ask ask = Ask({}, 10, "bob");
  ask.deadline_us = gate.clock.NowMicros() + kSecond / 2;  // every second turn is his: 0.2 s
  EXPECT_NE(gate.MustEnter(ask), nullptr);
  ask.deadline_us = gate.clock.NowMicros() + kSecond / 10;
  EXPECT_FALSE(gate.Refusal(ask).ok());
  ask.limits.weight = 19 * kUnitWeight;  // nineteen of twenty turns
  ask.deadline_us = gate.clock.NowMicros() + kSecond * 12 / 100;
  EXPECT_NE(gate.MustEnter(ask), nullptr);
}

TEST(TenantGateTest, WithoutAQueueNoDeadlineIsTooShort) {
  Gate gate;
  TenantGate::Ask ask = Ask({});
  ask.deadline_us = gate.clock.NowMicros() + 1;
  EXPECT_NE(gate.MustEnter(ask), nullptr);
}

}  // namespace
}  // namespace polyad
