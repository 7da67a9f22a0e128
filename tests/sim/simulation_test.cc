#include "tests/sim/simulation.h"

#include <gtest/gtest.h>

namespace polyad {
namespace {

TEST(Simulation, EveryPromiseHoldsOverFiveHundredSeeds) {
  SimulationResult sum;
  for (uint64_t seed = 1; seed <= 500; ++seed) {
    const SimulationResult result = Simulate({seed});
    ASSERT_EQ(result.failure, "") << "seed " << seed;
    sum.num_finished += result.num_finished;
    sum.num_preemptions += result.num_preemptions;
    sum.num_faults += result.num_faults;
    sum.num_overruns += result.num_overruns;
    sum.num_expired += result.num_expired;
    sum.num_cancelled += result.num_cancelled;
    sum.prefix_hits += result.prefix_hits;
    sum.num_stop_strings += result.num_stop_strings;
    sum.num_shared_prompts += result.num_shared_prompts;
    sum.num_invocations += result.num_invocations;
    sum.num_embeddings += result.num_embeddings;
    sum.num_forgotten_heads += result.num_forgotten_heads;
    sum.num_restored += result.num_restored;
    sum.num_given_back += result.num_given_back;
  }
  // The seeds reach what they are there for.
  EXPECT_GT(sum.num_finished, 5000);
  EXPECT_GT(sum.num_preemptions, 500);
  EXPECT_GT(sum.num_faults, 100);
  EXPECT_GT(sum.num_overruns, 50);
  EXPECT_GT(sum.num_expired, 100);
  EXPECT_GT(sum.num_cancelled, 500);
  EXPECT_GT(sum.prefix_hits, 5000);
  EXPECT_GT(sum.num_stop_strings, 200);
  EXPECT_GT(sum.num_shared_prompts, 200);
  EXPECT_GT(sum.num_invocations, 200);
  EXPECT_GT(sum.num_embeddings, 1000);
  EXPECT_GT(sum.num_forgotten_heads, 200);
  EXPECT_GT(sum.num_restored, 500);
  EXPECT_GT(sum.num_given_back, 5000);
}

// One history, checked after every step of it.
TEST(Simulation, BlocksAreConservedOverAHundredThousandOperations) {
  const SimulationResult result = Simulate({.seed = 12, .num_operations = 100'000});
  ASSERT_EQ(result.failure, "");
  EXPECT_GE(result.num_operations, 100'000);
  EXPECT_GT(result.num_steps, 10'000);
  EXPECT_GT(result.num_requests, 10'000);
  EXPECT_GT(result.num_cancelled, 1'000);
  EXPECT_GT(result.num_preemptions, 1'000);
  EXPECT_GT(result.num_reloads, 1'000);
  EXPECT_GT(result.num_unloads, 1'000);
  EXPECT_GT(result.num_forgotten_heads, 1'000);
  EXPECT_GT(result.num_saved, 10'000);
  EXPECT_GT(result.num_restored, 1'000);
  EXPECT_GT(result.num_shared_prompts, 1'000);
  EXPECT_GT(result.prefix_hits, 10'000);
  EXPECT_GT(result.num_faults, 1'000);
  EXPECT_GT(result.num_expired, 500);
  EXPECT_GT(result.num_invocations, 500);
}

// One whose sequences give back what is behind their window.
TEST(Simulation, BlocksBehindAWindowAreConservedToo) {
  const SimulationResult result = Simulate({.seed = 9, .num_operations = 20'000});
  ASSERT_EQ(result.failure, "");
  EXPECT_GT(result.num_given_back, 10'000);
  EXPECT_GT(result.num_preemptions, 20);
  EXPECT_GT(result.num_restored, 100);
  EXPECT_GT(result.num_cancelled, 1'000);
  EXPECT_GT(result.num_reloads, 500);
  EXPECT_GT(result.num_shared_prompts, 100);
}

// K/V and adapters in one memory: pages come and go, answers stay what they are.
TEST(Simulation, EveryPromiseHoldsWhereMemoryIsShared) {
  SimulationResult sum;
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    const SimulationResult result = Simulate({.seed = seed, .shares_memory = true});
    ASSERT_EQ(result.failure, "") << "seed " << seed;
    sum.num_finished += result.num_finished;
    sum.num_preemptions += result.num_preemptions;
    sum.prefix_hits += result.prefix_hits;
    sum.num_restored += result.num_restored;
    sum.num_pages_grown += result.num_pages_grown;
    sum.num_pages_given += result.num_pages_given;
    sum.num_adapters_placed += result.num_adapters_placed;
    sum.num_condemned += result.num_condemned;
  }
  EXPECT_GT(sum.num_finished, 2500);
  EXPECT_GT(sum.num_preemptions, 300);
  EXPECT_GT(sum.prefix_hits, 3000);
  EXPECT_GT(sum.num_restored, 200);
  EXPECT_GT(sum.num_pages_grown, 500);
  EXPECT_GT(sum.num_pages_given, 500);
  EXPECT_GT(sum.num_adapters_placed, 200);
  EXPECT_GT(sum.num_condemned, 100);
}

TEST(Simulation, PagesAreConservedOverAHundredThousandOperations) {
  const SimulationResult result =
      Simulate({.seed = 12, .num_operations = 100'000, .shares_memory = true});
  ASSERT_EQ(result.failure, "");
  EXPECT_GE(result.num_operations, 100'000);
  EXPECT_GT(result.num_pages_grown, 2'000);
  EXPECT_GT(result.num_pages_given, 2'000);
  EXPECT_GT(result.num_adapters_placed, 1'000);
  EXPECT_GT(result.num_preemptions, 1'000);
  EXPECT_GT(result.num_cancelled, 1'000);
  EXPECT_GT(result.num_reloads, 1'000);
}

TEST(Simulation, ASeedIsAHistory) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    EXPECT_EQ(Simulate({seed}).log_hash, Simulate({seed}).log_hash);
    EXPECT_NE(Simulate({seed}).log_hash, Simulate({seed + 1}).log_hash);
  }
}

}  // namespace
}  // namespace polyad
