#include "engine/runtime/request_registry.h"

#include <gtest/gtest.h>

#include <thread>

namespace polyad {
namespace {

StatusOr<int64_t> Begin(RequestRegistry& registry, std::string id = "") {
  return registry.Begin(id);
}

TEST(RequestRegistry, RefusesOneMoreThanTheQueueHolds) {
  RequestRegistry registry(2, 10);
  const int64_t first = *Begin(registry);
  ASSERT_TRUE(Begin(registry).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(Begin(registry).status()));
  registry.LeaveQueue(first);
  registry.LeaveQueue(first);  // counted once
  EXPECT_EQ(registry.num_queued(), 1);
  EXPECT_TRUE(Begin(registry).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(Begin(registry).status()));
}

TEST(RequestRegistry, RefusesOneMoreThanMayBeAlive) {
  RequestRegistry registry(10, 2);
  const int64_t first = *Begin(registry);
  registry.LeaveQueue(first);
  ASSERT_TRUE(Begin(registry).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(Begin(registry).status()));
  registry.End(first);
  EXPECT_TRUE(Begin(registry).ok());
}

TEST(RequestRegistry, AnIdIsInUseUntilItsRequestEnds) {
  RequestRegistry registry(10, 10);
  const int64_t number = *Begin(registry, "mine");
  EXPECT_EQ(registry.Find("mine"), number);
  EXPECT_TRUE(absl::IsAlreadyExists(Begin(registry, "mine").status()));
  registry.End(number);
  EXPECT_EQ(registry.Find("mine"), std::nullopt);
  EXPECT_TRUE(Begin(registry, "mine").ok());
}

TEST(RequestRegistry, MakesAnIdWhereTheClientGivesNone) {
  RequestRegistry registry(10, 10);
  std::string id;
  const int64_t number = *registry.Begin(id);
  EXPECT_FALSE(id.empty());
  EXPECT_EQ(registry.Find(id), number);
}

TEST(RequestRegistry, DrainRefusesNewOnesAndWaitsForTheOld) {
  RequestRegistry registry(10, 10);
  const int64_t number = *Begin(registry);
  EXPECT_FALSE(registry.Drain(0));
  EXPECT_TRUE(absl::IsUnavailable(Begin(registry).status()));
  std::thread ender([&] { registry.End(number); });
  EXPECT_TRUE(registry.Drain(60000));
  ender.join();
}

}  // namespace
}  // namespace polyad
