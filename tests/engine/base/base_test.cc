#include <thread>
#include <unordered_set>

#include "engine/base/bounded_queue.h"
#include "engine/base/clock.h"
#include "engine/base/digest.h"
#include "engine/base/log.h"
#include "engine/base/status.h"
#include "engine/base/strong_id.h"
#include "gtest/gtest.h"

namespace polyad {
namespace {

TEST(Sha256, MatchesTheStandardsExample) {  // FIPS 180-2, appendix B.1
  Sha256 sha;
  sha.Update("a");
  sha.Update("bc");
  EXPECT_EQ(ToHex(sha.Finish()),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(Log, EscapesWhatCouldForgeALine) {
  const std::string hostile = "a\"b\\c\nd\x1b[31m\xe2\x80\xa8";
  EXPECT_EQ(
      FormatLogLine(5, LogLevel::kInfo, "loaded", {{"name", hostile}, {"tokens", int64_t{7}}}),
      "{\"ts_ms\":5,\"level\":\"info\",\"event\":\"loaded\",\"name\":\"a\\\"b\\\\c\\u000ad\\u001b["
      "31m"
      "\\u00e2\\u0080\\u00a8\",\"tokens\":7}");
}

TEST(Log, CutsALineAtItsLimit) {
  const std::string huge(1 << 20, '\n');
  const std::string line = FormatLogLine(0, LogLevel::kError, "x", {{"value", huge}});
  EXPECT_LE(line.size(), 8200u);
  EXPECT_EQ(line.substr(line.size() - 2), "\"}");
}

TEST(BoundedQueue, RefusesTheItemPastItsCapacityButTakesUrgentOnes) {
  BoundedQueue<int> queue(2);
  EXPECT_TRUE(queue.TryPush(1));
  EXPECT_TRUE(queue.TryPush(2));
  EXPECT_FALSE(queue.TryPush(3));
  EXPECT_TRUE(queue.PushUrgent(4));
  EXPECT_EQ(queue.DrainNow(), (std::vector<int>{1, 2, 4}));
  EXPECT_EQ(queue.size(), 0u);
}

TEST(BoundedQueue, CloseWakesTheConsumerAndRefusesProducers) {
  BoundedQueue<int> queue(2);
  std::thread consumer([&] { EXPECT_TRUE(queue.DrainWait(std::chrono::hours(1)).empty()); });
  queue.Close();
  consumer.join();
  EXPECT_FALSE(queue.TryPush(1));
  EXPECT_FALSE(queue.PushUrgent(1));
}

TEST(BoundedQueue, LosesNothingBetweenThreads) {
  BoundedQueue<int> queue(100000);
  std::vector<std::thread> producers;
  for (int p = 0; p < 4; ++p) {
    producers.emplace_back([&queue, p] {
      for (int i = 0; i < 1000; ++i) ASSERT_TRUE(queue.TryPush(p * 1000 + i));
    });
  }
  std::unordered_set<int> seen;
  while (seen.size() < 4000) {
    for (int value : queue.DrainWait(std::chrono::milliseconds(100))) seen.insert(value);
  }
  for (std::thread& producer : producers) producer.join();
  EXPECT_EQ(seen.size(), 4000u);
}

TEST(Clock, TheFakeOneMovesOnlyWhenTold) {
  FakeClock clock;
  const int64_t before = clock.NowMicros();
  clock.AdvanceMicros(1500);
  EXPECT_EQ(clock.NowMicros() - before, 1500);
  EXPECT_EQ(clock.NowMillis(), (before + 1500) / 1000);
}

Status Fails() { return InvalidArgument("key '%s': expected %d", std::string("a"), 3); }
StatusOr<int> Chains() {
  POLYAD_RETURN_IF_ERROR(Annotate(Fails(), "config.json"));
  return 1;
}

TEST(Status, CarriesWhereAndWhatUpwards) {
  EXPECT_EQ(Chains().status().message(), "config.json: key 'a': expected 3");
  EXPECT_EQ(Chains().status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(StrongId, IsInvalidUntilGivenAValue) {
  EXPECT_FALSE(BlockId().valid());
  EXPECT_TRUE(BlockId(0).valid());
  EXPECT_LT(BlockId(1), BlockId(2));
}

}  // namespace
}  // namespace polyad
