#include "engine/runtime/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <optional>
#include <random>

#include "engine/cache/block_pool.h"

namespace polyad {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

SequenceView Waiting(int64_t id, int64_t num_tokens, int64_t tenant = 0) {
  SequenceView view;
  view.id = SequenceId(id);
  view.tenant = tenant;
  view.num_tokens = num_tokens;
  view.first_logits = num_tokens - 1;
  return view;
}

SequenceView Running(int64_t id, int64_t num_tokens, int64_t num_computed) {
  SequenceView view = Waiting(id, num_tokens);
  view.num_computed = num_computed;
  view.num_blocks = BlocksFor(num_tokens);
  view.exclusive_blocks = view.num_blocks;
  return view;
}

SchedulerView ViewOf(int64_t available_blocks = 1000) {
  SchedulerView view;
  view.now_us = 1000;
  view.limits = {.max_running = 8, .max_step_tokens = 64, .max_sample_rows = 24};
  view.num_blocks = 1000;
  view.available_blocks = available_blocks;
  view.tenants.resize(4);
  return view;
}

std::vector<int64_t> Ids(const std::vector<SequenceId>& ids) {
  std::vector<int64_t> values;
  for (const SequenceId id : ids) values.push_back(id.value());
  return values;
}

std::vector<int64_t> Admitted(const StepPlan& plan) {
  std::vector<int64_t> values;
  for (const auto& admission : plan.admissions) values.push_back(admission.id.value());
  return values;
}

const StepPlan::Work* WorkOf(const StepPlan& plan, int64_t id) {
  for (const auto& work : plan.work) {
    if (work.id == SequenceId(id)) return &work;
  }
  return nullptr;
}

TEST(Scheduler, DecodesAndPrefillChunksShareAStep) {
  SchedulerView view = ViewOf();
  view.running = {Running(1, 200, 100), Running(2, 30, 29)};
  const StepPlan plan = Plan(view);
  EXPECT_EQ(WorkOf(plan, 2)->count, 1);
  EXPECT_EQ(WorkOf(plan, 1)->first, 100);
  EXPECT_EQ(WorkOf(plan, 1)->count, 63);  // the decode comes out of the budget first
}

SequenceView Whole(SequenceView view, int64_t whole_until) {
  view.whole_until = whole_until;
  return view;
}

TEST(Scheduler, AWholePromptRunsInOneStepAndThenTokenByToken) {
  SchedulerView view = ViewOf();
  view.waiting = {Whole(Waiting(1, 43), 40)};  // preempted after three tokens of its own
  StepPlan plan = Plan(view);
  EXPECT_THAT(Admitted(plan), ElementsAre(1));
  EXPECT_EQ(WorkOf(plan, 1)->first, 0);
  EXPECT_EQ(WorkOf(plan, 1)->count, 40);
  view.waiting.clear();
  for (const int64_t computed : {40, 41, 42}) {
    view.running = {Whole(Running(1, 43, computed), 40)};
    plan = Plan(view);
    EXPECT_EQ(WorkOf(plan, 1)->first, computed);
    EXPECT_EQ(WorkOf(plan, 1)->count, 1);
  }
}

TEST(Scheduler, AWholePromptWaitsForRoomAndNobodyOvertakesIt) {
  SchedulerView view = ViewOf();
  view.running = {Running(1, 50, 10)};  // takes 40 of the 64
  view.waiting = {Whole(Waiting(2, 30), 30), Waiting(3, 5)};
  EXPECT_THAT(Admitted(Plan(view)), IsEmpty());
  view.running = {Running(1, 51, 50)};
  EXPECT_THAT(Admitted(Plan(view)), ElementsAre(2, 3));
}

TEST(Scheduler, ALoadsHeadRunsInPiecesBesideDecodesOnly) {
  SchedulerView view = ViewOf();
  SequenceView head = Waiting(9, 41);
  head.max_beside_decodes = 16;
  view.waiting = {head};
  EXPECT_EQ(WorkOf(Plan(view), 9)->count, 41);  // nobody waits for it
  view.running = {Running(1, 51, 50)};
  StepPlan plan = Plan(view);
  EXPECT_THAT(Admitted(plan), ElementsAre(9));
  EXPECT_EQ(WorkOf(plan, 9)->count, 16);
  view.waiting = {Waiting(10, 30)};
  view.running.push_back(Running(9, 41, 16));
  view.running.back().max_beside_decodes = 16;
  plan = Plan(view);
  EXPECT_EQ(WorkOf(plan, 9)->first, 16);
  EXPECT_EQ(WorkOf(plan, 9)->count, 16);
  EXPECT_EQ(WorkOf(plan, 10)->count, 30);  // prompts of others are theirs to wait for
}

TEST(Scheduler, ALargestWholePromptFitsBesideEveryOtherDecode) {
  SchedulerView view = ViewOf();
  for (int64_t id = 1; id < view.limits.max_running; ++id) {
    view.running.push_back(Running(id, 20, 19));
  }
  const int64_t most = view.limits.max_whole_tokens();
  view.waiting = {Whole(Waiting(20, most), most)};
  EXPECT_THAT(Admitted(Plan(view)), ElementsAre(20));
}

TEST(Scheduler, AWholeScoredPromptWaitsForItsRowsOfLogits) {
  SchedulerView view = ViewOf();
  SequenceView scored = Waiting(1, 10);
  scored.first_logits = 0;
  SequenceView whole = Whole(Waiting(2, view.limits.max_whole_scored()), 16);
  whole.first_logits = 0;
  view.waiting = {scored, whole};
  EXPECT_THAT(Admitted(Plan(view)), ElementsAre(1));
  view.waiting = {whole};
  EXPECT_THAT(Admitted(Plan(view)), ElementsAre(2));
  EXPECT_EQ(WorkOf(Plan(view), 2)->count, 16);
}

TEST(Scheduler, AdmissionFillsWhatIsLeftOfTheBudget) {
  SchedulerView view = ViewOf();
  view.running = {Running(1, 50, 10)};
  view.waiting = {Waiting(2, 16), Waiting(3, 100), Waiting(4, 5)};
  const StepPlan plan = Plan(view);
  EXPECT_THAT(Admitted(plan), ElementsAre(2, 3));
  EXPECT_EQ(WorkOf(plan, 3)->count, 8);
  EXPECT_EQ(WorkOf(plan, 4), nullptr);
  EXPECT_EQ(plan.num_rows(), 64);
}

TEST(Scheduler, ACachedPrefixIsNotComputedAgain) {
  SchedulerView view = ViewOf();
  view.waiting = {Waiting(1, 40)};
  view.waiting[0].cached_blocks = 2;
  view.waiting[0].unheld_cached_blocks = 2;
  const StepPlan plan = Plan(view);
  ASSERT_EQ(plan.admissions.size(), 1u);
  EXPECT_EQ(plan.admissions[0].cached_blocks, 2);
  EXPECT_EQ(WorkOf(plan, 1)->first, 32);
  EXPECT_EQ(WorkOf(plan, 1)->count, 8);
}

TEST(Scheduler, NeverRunsMoreThanMaxRunning) {
  SchedulerView view = ViewOf();
  for (int64_t id = 0; id < 6; ++id) view.running.push_back(Running(id, 10, 9));
  for (int64_t id = 6; id < 12; ++id) view.waiting.push_back(Waiting(id, 3));
  EXPECT_THAT(Admitted(Plan(view)), ElementsAre(6, 7));
}

TEST(Scheduler, PreemptsTheYoungestOfTheLowestPriority) {
  SchedulerView view = ViewOf(0);
  view.running = {Running(1, 17, 16), Running(2, 10, 9), Running(3, 10, 9), Running(4, 10, 9)};
  view.running[0].num_blocks = 1;  // needs a second block
  view.running[2].priority = -1;   // the lowest
  view.running[3].priority = 5;
  view.waiting = {Waiting(9, 3)};
  const StepPlan plan = Plan(view);
  EXPECT_THAT(Ids(plan.preemptions), ElementsAre(3));
  EXPECT_EQ(WorkOf(plan, 3), nullptr);
  EXPECT_NE(WorkOf(plan, 1), nullptr);
  EXPECT_THAT(Admitted(plan), IsEmpty());  // nobody takes what was just freed
}

TEST(Scheduler, SharedBlocksDoNotCountAsFreedByAPreemption) {
  SchedulerView view = ViewOf(0);
  view.running = {Running(1, 17, 16), Running(2, 10, 9), Running(3, 10, 9)};
  view.running[0].num_blocks = 1;
  view.running[2].exclusive_blocks = 0;
  EXPECT_THAT(Ids(Plan(view).preemptions), ElementsAre(3, 2));
}

TEST(Scheduler, AdmitsOnlyWhatFits) {
  SchedulerView view = ViewOf(3);
  view.num_blocks = 4;  // no headroom in so small a pool
  view.waiting = {Waiting(1, 32), Waiting(2, 33), Waiting(3, 4)};
  // The second does not fit beside the first, and the third may not overtake it.
  EXPECT_THAT(Admitted(Plan(view)), ElementsAre(1));
}

TEST(Scheduler, ASecondCacheNeedsBlocksOfItsOwn) {
  SchedulerView view = ViewOf(5);
  view.num_blocks = 6;
  view.waiting = {Waiting(1, 33)};
  view.waiting[0].num_caches = 2;
  EXPECT_THAT(Admitted(Plan(view)), IsEmpty());  // six blocks
  view.waiting[0].num_tokens = 32;
  EXPECT_THAT(Admitted(Plan(view)), ElementsAre(1));

  view.waiting.clear();
  view.running = {Running(1, 17, 16), Running(2, 10, 9)};
  view.running[0].num_caches = 2;
  view.running[0].num_blocks = 2;  // both want another
  view.available_blocks = 1;
  EXPECT_THAT(Ids(Plan(view).preemptions), ElementsAre(2));
  view.available_blocks = 2;
  EXPECT_THAT(Ids(Plan(view).preemptions), IsEmpty());
}

TEST(Scheduler, SpilledBlocksAreNotComputedButNeedRoom) {
  SchedulerView view = ViewOf(3);
  view.num_blocks = 4;
  view.waiting = {Waiting(1, 64)};
  view.waiting[0].spilled_blocks = 2;
  EXPECT_THAT(Admitted(Plan(view)), IsEmpty());  // four new blocks all the same
  view.available_blocks = 4;
  StepPlan plan = Plan(view);
  ASSERT_THAT(Admitted(plan), ElementsAre(1));
  EXPECT_EQ(plan.admissions[0].spilled_blocks, 2);
  EXPECT_EQ(WorkOf(plan, 1)->first, 32);
  EXPECT_EQ(WorkOf(plan, 1)->count, 32);
  view.limits.max_restored_blocks = 1;
  plan = Plan(view);
  EXPECT_EQ(plan.admissions[0].spilled_blocks, 1);
  EXPECT_EQ(WorkOf(plan, 1)->first, 16);
}

TEST(Scheduler, TakingAnUnheldPrefixUsesAvailableBlocks) {
  SchedulerView view = ViewOf(3);
  view.num_blocks = 4;
  view.waiting = {Waiting(1, 64)};
  view.waiting[0].cached_blocks = 2;
  view.waiting[0].unheld_cached_blocks = 2;
  EXPECT_THAT(Admitted(Plan(view)), IsEmpty());
  view.waiting[0].unheld_cached_blocks = 1;
  EXPECT_THAT(Admitted(Plan(view)), ElementsAre(1));
}

TEST(Scheduler, LeavesHeadroomForTheRunningToGrow) {
  SchedulerView view = ViewOf(3);
  view.running = {Running(1, 10, 9), Running(2, 10, 9)};
  view.waiting = {Waiting(3, 32)};
  EXPECT_THAT(Admitted(Plan(view)), IsEmpty());
  view.available_blocks = 4;
  EXPECT_THAT(Admitted(Plan(view)), ElementsAre(3));
}

TEST(Scheduler, WhatExpiredInTheQueueNeverRuns) {
  SchedulerView view = ViewOf();
  view.waiting = {Waiting(1, 4), Waiting(2, 4)};
  view.waiting[0].deadline_us = view.now_us;
  const StepPlan plan = Plan(view);
  EXPECT_THAT(Ids(plan.expirations), ElementsAre(1));
  EXPECT_THAT(Admitted(plan), ElementsAre(2));
}

TEST(Scheduler, AnExpiredSequenceStopsAndItsBlocksServeOthers) {
  SchedulerView view = ViewOf(0);
  view.running = {Running(1, 17, 16), Running(2, 10, 9)};
  view.running[0].num_blocks = 1;
  view.running[1].deadline_us = 1;
  const StepPlan plan = Plan(view);
  EXPECT_THAT(Ids(plan.expirations), ElementsAre(2));
  EXPECT_THAT(plan.preemptions, IsEmpty());
  EXPECT_NE(WorkOf(plan, 1), nullptr);
}

// Its cached prefix was counted as held by the expired sequence, so taking it uses what that freed.
TEST(Scheduler, BlocksFreedByAnExpirationAreNotPromisedTwice) {
  SchedulerView view = ViewOf(/*available_blocks=*/3);
  SequenceView expired = Running(1, 4 * kBlockTokens, 4 * kBlockTokens - 1);
  expired.deadline_us = view.now_us;
  SequenceView waiting = Waiting(2, 6 * kBlockTokens);
  waiting.cached_blocks = 4;  // the expired sequence's
  view.running = {expired};
  view.waiting = {waiting, Waiting(3, 4 * kBlockTokens)};
  const StepPlan plan = Plan(view);
  int64_t taken = 0;
  for (const auto& admission : plan.admissions) {
    taken += admission.id == SequenceId(2) ? 6 : 4;
  }
  EXPECT_LE(taken, 3 + 4);
}

TEST(Scheduler, HigherPriorityGoesFirst) {
  SchedulerView view = ViewOf();
  view.limits.max_running = 1;
  view.waiting = {Waiting(1, 4), Waiting(2, 4)};
  view.waiting[1].priority = 1;
  EXPECT_THAT(Admitted(Plan(view)), ElementsAre(2));
}

TEST(Scheduler, TheTenantServedLeastGoesFirst) {
  SchedulerView view = ViewOf();
  view.limits.max_running = 3;
  view.tenants[0].served = 50 * kBaseTokenCost;
  for (int64_t id = 1; id <= 5; ++id) view.waiting.push_back(Waiting(id, 10, 0));
  view.waiting.push_back(Waiting(6, 10, 1));
  view.waiting.push_back(Waiting(7, 10, 1));
  // Tenant 1 is behind by 50 tokens: both of its requests, then the older tenant's first.
  EXPECT_THAT(Admitted(Plan(view)), ElementsAre(6, 7, 1));
}

TEST(Scheduler, ACostlyAdapterUsesItsTenantsShareFaster) {
  SchedulerView view = ViewOf();
  view.limits.max_running = 3;
  view.waiting = {Waiting(1, 10, 0), Waiting(2, 10, 0), Waiting(3, 15, 1), Waiting(4, 15, 1)};
  view.waiting[0].token_cost = view.waiting[1].token_cost = 2 * kBaseTokenCost;
  // 1 costs its tenant 20 tokens; 3 costs the other 15; so 4 comes before 2.
  EXPECT_THAT(Admitted(Plan(view)), ElementsAre(1, 3, 4));
}

TEST(Scheduler, ScoringAPromptIsBoundedByRowsOfLogits) {
  SchedulerView view = ViewOf();
  view.waiting = {Waiting(1, 60)};
  view.waiting[0].first_logits = 0;
  StepPlan plan = Plan(view);
  EXPECT_EQ(WorkOf(plan, 1)->count, 24 - 8);
  view.running = {Running(1, 60, 16)};  // part of the prompt was scored before a preemption
  view.running[0].first_logits = 30;
  view.waiting.clear();
  plan = Plan(view);
  EXPECT_EQ(WorkOf(plan, 1)->count, (30 - 16) + (24 - 8));
}

// Shares of two tenants that always have work, one of them with fifty times the requests, over many
// steps.
TEST(Scheduler, AFloodFromOneTenantLeavesTheOtherItsHalf) {
  std::vector<int64_t> served = {0, 0};
  int64_t next_id = 1;
  std::vector<SequenceView> queue;
  for (int i = 0; i < 500; ++i) queue.push_back(Waiting(next_id++, 40, 0));
  for (int i = 0; i < 10; ++i) queue.push_back(Waiting(next_id++, 40, 1));
  for (int step = 0; step < 20; ++step) {
    SchedulerView view = ViewOf();
    view.tenants = {{served[0], {}}, {served[1], {}}};
    view.waiting = queue;
    const StepPlan plan = Plan(view);
    for (const auto& work : plan.work) {
      const auto entry = std::find_if(queue.begin(), queue.end(),
                                      [&](const SequenceView& item) { return item.id == work.id; });
      served[static_cast<size_t>(entry->tenant)] += work.count * kBaseTokenCost;
      const int64_t tenant = entry->tenant;
      *entry = Waiting(next_id++, 40, tenant);  // each tenant keeps its queue full
    }
  }
  const int64_t gap = std::abs(served[0] - served[1]);
  EXPECT_LE(gap, 64 * kBaseTokenCost);  // one step's tokens
}

TEST(Scheduler, ATenantIsServedByItsWeight) {
  std::vector<TenantView> tenants(2);
  tenants[1].share.weight = 3 * kUnitWeight;
  std::vector<int64_t> tokens = {0, 0};
  int64_t next_id = 1;
  for (int step = 0; step < 200; ++step) {
    SchedulerView view = ViewOf();
    view.tenants = tenants;
    for (int i = 0; i < 8; ++i) view.waiting.push_back(Waiting(next_id++, 40, i % 2));
    for (const auto& work : Plan(view).work) {
      const size_t tenant = static_cast<size_t>((work.id.value() - 1) % 2);
      tokens[tenant] += work.count;
      tenants[tenant].served += tenants[tenant].share.ChargeOf(work.count * kBaseTokenCost);
    }
  }
  EXPECT_NEAR(static_cast<double>(tokens[1]) / static_cast<double>(tokens[0]), 3.0, 0.05);
}

TEST(Scheduler, ATenantThatRunsAllItMayWaitsForItselfAlone) {
  SchedulerView view = ViewOf();
  view.tenants[0].share.max_sequences = 2;
  view.tenants[1].served = 1000 * kBaseTokenCost;
  view.running = {Running(1, 10, 9)};
  for (int64_t id = 2; id <= 4; ++id) view.waiting.push_back(Waiting(id, 5, 0));
  view.waiting.push_back(Waiting(5, 5, 1));
  EXPECT_THAT(Admitted(Plan(view)), ElementsAre(2, 5));
}

TEST(Scheduler, ATenantWithAllItsBlocksWaitsForItselfAlone) {
  SchedulerView view = ViewOf();
  view.tenants[0].share.max_kv_blocks = 4;
  view.running = {Running(1, 2 * kBlockTokens, 2 * kBlockTokens - 1)};
  view.waiting = {Waiting(2, 2 * kBlockTokens, 0), Waiting(3, 1, 0), Waiting(4, 5, 1)};
  // 2 would leave no block for 1 to grow into, and 3 does not overtake it.
  EXPECT_THAT(Admitted(Plan(view)), ElementsAre(4));
  view.running.clear();
  view.tenants[0].share.max_kv_blocks = 1;  // lowered since: one at a time runs all the same
  EXPECT_THAT(Admitted(Plan(view)), ElementsAre(2, 4));
}

TEST(Scheduler, ATenantThatOutgrowsItsBlocksTakesThemBackFromItself) {
  SchedulerView view = ViewOf();
  view.tenants[1].share.max_kv_blocks = 3;
  view.running = {Running(1, kBlockTokens + 1, kBlockTokens), Running(2, 20, 19),
                  Running(3, 20, 19)};
  view.running[0].tenant = view.running[2].tenant = 1;
  view.running[0].num_blocks = view.running[0].exclusive_blocks = 1;
  view.waiting = {Waiting(4, 5, 0)};
  const StepPlan plan = Plan(view);
  EXPECT_THAT(Ids(plan.preemptions), ElementsAre(3));
  EXPECT_THAT(Admitted(plan), ElementsAre(4)) << "others are not held up by it";
  EXPECT_NE(WorkOf(plan, 1), nullptr);
  EXPECT_NE(WorkOf(plan, 2), nullptr);
  view.running[2].returned_blocks = 1;  // behind a window: nobody has those any more
  EXPECT_THAT(Plan(view).preemptions, IsEmpty());
}

TEST(Scheduler, WhereEveryPlaceIsTakenWhoHasNoneGetsOneFromWhoHasMost) {
  SchedulerView view = ViewOf();
  view.limits.max_running = 4;
  for (int64_t id = 1; id <= 4; ++id) view.running.push_back(Running(id, 20, 19));
  view.running[0].tenant = 1;
  view.tenants[0].served = view.tenants[1].served = 100 * kBaseTokenCost;
  view.waiting = {Waiting(5, 4, 2), Waiting(6, 4, 2), Waiting(7, 4, 0)};
  const StepPlan plan = Plan(view);
  EXPECT_THAT(Ids(plan.preemptions), ElementsAre(4)) << "the youngest of tenant 0's three";
  EXPECT_THAT(Admitted(plan), ElementsAre(5));
  EXPECT_EQ(WorkOf(plan, 4), nullptr);
}

TEST(Scheduler, APlaceIsTakenOnlyFromWhoStillHoldsNoFewer) {
  SchedulerView view = ViewOf();
  view.limits.max_running = 3;
  for (int64_t id = 1; id <= 3; ++id) view.running.push_back(Running(id, 20, 19));
  view.running[0].tenant = 1;
  view.tenants[0].served = 100 * kBaseTokenCost;
  view.waiting = {Waiting(4, 4, 1)};
  EXPECT_THAT(Plan(view).preemptions, IsEmpty()) << "two and one would be one and two";
  view.waiting[0].tenant = 2;
  EXPECT_THAT(Ids(Plan(view).preemptions), ElementsAre(3));
  view.tenants[0].share.weight = 3 * kUnitWeight;
  EXPECT_THAT(Plan(view).preemptions, IsEmpty()) << "it may have three for the others' one";
  view.tenants[0].share.weight = kUnitWeight;
  view.running[1].priority = view.running[2].priority = 1;
  EXPECT_THAT(Plan(view).preemptions, IsEmpty()) << "the operator's priorities come first";
}

// Tenant 0 holds all 40 blocks, as ten sequences of four; tenant 1 has been served less.
SchedulerView FullPool() {
  SchedulerView view = ViewOf(0);
  view.num_blocks = 40;
  view.limits.max_running = 16;
  for (int64_t id = 1; id <= 10; ++id) {
    view.running.push_back(Running(id, 4 * kBlockTokens - 2, 4 * kBlockTokens - 3));
  }
  view.tenants[0].served = 100 * kBaseTokenCost;
  return view;
}

TEST(Scheduler, WhoHoldsNoBlocksGetsThemFromWhoHoldsMost) {
  SchedulerView view = FullPool();
  view.waiting = {Waiting(11, 5 * kBlockTokens, 1), Waiting(12, 4, 1)};
  const StepPlan plan = Plan(view);
  EXPECT_THAT(Ids(plan.preemptions), ElementsAre(10, 9)) << "five blocks, and one to grow into";
  EXPECT_THAT(Admitted(plan), ElementsAre(11));
  view.running[9].exclusive_blocks = 0;  // another has them too
  EXPECT_THAT(Ids(Plan(view).preemptions), ElementsAre(9, 8));
  view.available_blocks = 6;
  EXPECT_THAT(Plan(view).preemptions, IsEmpty());
}

TEST(Scheduler, BlocksAreTakenOnlyUpToHalfAShareAndFromWhoStillHoldsNoFewer) {
  SchedulerView view = FullPool();
  view.tenants.resize(2);
  const auto preempted = [&] { return Ids(Plan(view).preemptions); };
  view.waiting = {Waiting(11, 2 * kBlockTokens, 1)};
  view.running[0].tenant = view.running[1].tenant = 1;
  EXPECT_THAT(preempted(), ElementsAre(10)) << "it has 8 and may come to 10 of 40";
  view.waiting[0].num_tokens = 3 * kBlockTokens;
  EXPECT_THAT(preempted(), IsEmpty()) << "from then on sequences that end make room";
  view.tenants[1].share.weight = 2 * kUnitWeight;
  EXPECT_THAT(preempted(), ElementsAre(10)) << "of a share of 26";
  view.tenants[1].share.weight = kUnitWeight;
  view.running[0].tenant = view.running[1].tenant = 0;
  view.waiting[0].num_tokens = 20 * kBlockTokens;
  EXPECT_THAT(preempted(), IsEmpty()) << "nothing is given up where it would not do";
  view.waiting[0].num_tokens = 15 * kBlockTokens;
  EXPECT_THAT(preempted(), ElementsAre(10, 9, 8, 7)) << "the first one may be any size";
  view.tenants[0].share.weight = 2 * kUnitWeight;
  EXPECT_THAT(preempted(), IsEmpty()) << "24 to 15 are less than two to one";
  for (SequenceView& sequence : view.running) sequence.priority = 1;
  view.tenants[0].share.weight = kUnitWeight;
  EXPECT_THAT(preempted(), IsEmpty()) << "the operator's priorities come first";
}

TEST(Scheduler, TwoTenantsGiveUpBlocksInTurnAndNoLastOne) {
  SchedulerView view = FullPool();
  for (size_t i = 0; i < 5; ++i) view.running[i].tenant = 2;
  view.tenants[2] = view.tenants[0];
  view.waiting = {Waiting(11, 10 * kBlockTokens, 1)};
  EXPECT_THAT(Ids(Plan(view).preemptions), ElementsAre(10, 5, 9));
  view.running.resize(1);
  view.running[0] = Running(1, 40 * kBlockTokens - 2, 40 * kBlockTokens - 3);
  view.waiting[0].num_tokens = 4;
  EXPECT_THAT(Plan(view).preemptions, IsEmpty()) << "it would hold nothing any more";
}

TEST(Scheduler, BlocksTakenBackAreNotPromisedTwice) {
  SchedulerView view = FullPool();
  view.waiting = {Waiting(11, 5 * kBlockTokens, 1)};
  view.waiting[0].cached_blocks = 4;  // held, perhaps by who gives up its blocks
  EXPECT_THAT(Ids(Plan(view).preemptions), ElementsAre(10, 9)) << "as if it had none";
}

TEST(Scheduler, WhoNeedsABlockTakesItFromTheTenantThatHoldsMost) {
  SchedulerView view = FullPool();
  view.running[0].num_tokens = 4 * kBlockTokens + 1;  // wants a fifth
  view.running[0].num_computed = 4 * kBlockTokens;
  view.running[8].tenant = view.running[9].tenant = 1;
  EXPECT_THAT(Ids(Plan(view).preemptions), ElementsAre(8)) << "the youngest of tenant 0";
  view.running[8].tenant = 2;
  EXPECT_THAT(Ids(Plan(view).preemptions), ElementsAre(8)) << "each of the others keeps its one";
  view.tenants[0].share.weight = 8 * kUnitWeight;
  view.running[8].tenant = 1;
  EXPECT_THAT(Ids(Plan(view).preemptions), ElementsAre(10))
      << "two of one weight to eight of eight";
  view.running[9].priority = 1;
  view.running[8].tenant = 0;
  EXPECT_THAT(Ids(Plan(view).preemptions), ElementsAre(9)) << "of the lowest priority";
}

TEST(Scheduler, APromptOfTheTenantServedMoreLetsOthersInBeforeItsNextChunk) {
  SchedulerView view = ViewOf();
  view.tenants[0].served = 1000 * kBaseTokenCost;
  view.running = {Running(1, 500, 64)};
  view.waiting = {Waiting(2, 40, 1), Waiting(3, 10, 0)};
  const StepPlan plan = Plan(view);
  EXPECT_THAT(Admitted(plan), ElementsAre(2));
  EXPECT_EQ(WorkOf(plan, 2)->count, 40);
  EXPECT_EQ(WorkOf(plan, 1)->count, 24) << "the rest, and before its own tenant's next";
}

TEST(Scheduler, RandomViewsKeepEveryLimit) {
  std::mt19937 random(7);
  const auto below = [&](int64_t n) {
    return static_cast<int64_t>(random() % static_cast<uint64_t>(n));
  };
  for (int round = 0; round < 5000; ++round) {
    SchedulerView view = ViewOf(below(12));
    view.num_blocks = 24;
    int64_t id = 1;
    for (int64_t i = below(9); i > 0; --i) {
      const int64_t tokens = 1 + below(60);
      view.running.push_back(Running(id++, tokens, below(tokens)));
      view.running.back().tenant = below(4);
      view.running.back().num_caches = 1 + below(2);
      view.running.back().num_blocks *= view.running.back().num_caches;
      view.running.back().num_blocks -= below(2);
      view.running.back().exclusive_blocks = below(view.running.back().num_blocks + 1);
      view.running.back().priority = static_cast<int32_t>(below(3));
    }
    for (int64_t i = below(9); i > 0; --i) {
      view.waiting.push_back(Waiting(id++, 1 + below(90), below(4)));
      view.waiting.back().num_caches = 1 + below(2);
      view.waiting.back().priority = static_cast<int32_t>(below(3));
      view.waiting.back().deadline_us = below(4) == 0 ? 1 + below(2000) : 0;
    }
    for (TenantView& tenant : view.tenants) tenant.served = below(100);
    const StepPlan plan = Plan(view);
    int64_t used = 0;
    for (const auto& admission : plan.admissions) {
      for (const auto& waiting : view.waiting) {
        if (waiting.id == admission.id) used += waiting.blocks_for_all();
      }
    }
    int64_t freed = 0;
    for (const auto& sequence : view.running) {
      const bool gone =
          std::count(plan.preemptions.begin(), plan.preemptions.end(), sequence.id) +
              std::count(plan.expirations.begin(), plan.expirations.end(), sequence.id) >
          0;
      if (gone) freed += sequence.exclusive_blocks;
      if (!gone) used += sequence.blocks_for_all() - sequence.num_blocks;
      if (gone) {
        EXPECT_EQ(WorkOf(plan, sequence.id.value()), nullptr);
      }
    }
    EXPECT_LE(used, view.available_blocks + freed);
    EXPECT_LE(plan.num_rows(), view.limits.max_step_tokens);
    for (const auto& work : plan.work) EXPECT_GT(work.count, 0);
  }
}

}  // namespace
}  // namespace polyad
