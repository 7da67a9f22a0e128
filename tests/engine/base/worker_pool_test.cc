#include "engine/base/worker_pool.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <future>

namespace polyad {
namespace {

TEST(WorkerPoolTest, RunsEverythingQueuedBeforeItEnds) {
  std::atomic<int> count{0};
  {
    WorkerPool pool(2, 100);
    for (int i = 0; i < 100; ++i) EXPECT_TRUE(pool.TryRun([&] { ++count; }));
  }
  EXPECT_EQ(count.load(), 100);
}

TEST(WorkerPoolTest, RefusesOverItsQueueInsteadOfWaiting) {
  std::promise<void> release;
  std::shared_future<void> released(release.get_future());
  std::promise<void> started;
  WorkerPool pool(1, 2);
  ASSERT_TRUE(pool.TryRun([&started, released] {
    started.set_value();
    released.wait();
  }));
  started.get_future().wait();
  EXPECT_TRUE(pool.TryRun([] {}));
  EXPECT_TRUE(pool.TryRun([] {}));
  EXPECT_FALSE(pool.TryRun([] {}));
  release.set_value();
}

TEST(WorkerPoolTest, ItsThreadsAloneTakeTheNiceness) {
  const auto niceness = [] { return getpriority(PRIO_PROCESS, static_cast<id_t>(gettid())); };
  const int before = niceness();
  std::promise<int> inside;
  WorkerPool pool(1, 1, 19);
  ASSERT_TRUE(pool.TryRun([&] { inside.set_value(niceness()); }));
  EXPECT_EQ(inside.get_future().get(), 19);
  EXPECT_EQ(niceness(), before);
}

}  // namespace
}  // namespace polyad
