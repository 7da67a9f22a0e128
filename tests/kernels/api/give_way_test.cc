#include "kernels/api/give_way.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>

#include "gtest/gtest.h"

namespace polyad {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

void WorkFor(std::chrono::microseconds time) {
  const auto end = steady_clock::now() + time;
  while (steady_clock::now() < end) {
  }
}

// A worker between runs of no length, until told to stop.
class Worker {
 public:
  Worker()
      : thread_([this] {
          BeginRuns();
          while (!stop_.load()) {
            OfferCore();
            offers_.fetch_add(1);
            std::this_thread::yield();
          }
          EndRuns();
        }) {}
  ~Worker() {
    stop_.store(true);
    thread_.join();
  }
  int64_t offers() const { return offers_.load(); }

 private:
  std::atomic<bool> stop_{false};
  std::atomic<int64_t> offers_{0};
  std::thread thread_;
};

// Ten slices take ten loans, each followed by a rest.
TEST(GiveWayTest, BackgroundWorkRunsAtTheRateOfLoansWhileAWorkerRuns) {
  Worker worker;
  while (worker.offers() == 0) std::this_thread::yield();
  WorkFor(kSlice);
  GiveWay();  // the first loan
  const auto begin = steady_clock::now();
  for (int slice = 0; slice < 10; ++slice) {
    WorkFor(kSlice);
    GiveWay();
  }
  EXPECT_GE(steady_clock::now() - begin, 10 * (kSlice + kRest) / 2);
}

TEST(GiveWayTest, BackgroundWorkRunsAsItLikesWhileNoWorkerRuns) {
  // A hundred waits for a core that nobody lends would take half a second, in every round.
  auto fastest = steady_clock::duration::max();
  for (int round = 0; round < 50 && fastest >= milliseconds(400); ++round) {
    const auto begin = steady_clock::now();
    for (int slice = 0; slice < 100; ++slice) {
      WorkFor(kSlice / 10);
      GiveWay();
    }
    fastest = std::min(fastest, steady_clock::now() - begin);
  }
  EXPECT_LT(fastest, milliseconds(400));
}

TEST(GiveWayTest, AWaiterGoesOnWhenTheLastWorkerParks) {
  BeginRuns();
  std::atomic<bool> done{false};
  std::thread background([&] {
    for (int slice = 0; slice < 3; ++slice) {
      WorkFor(kSlice);
      GiveWay();
    }
    done.store(true);
  });
  EndRuns();
  background.join();
  EXPECT_TRUE(done.load());
}

int NumCores(std::thread::native_handle_type thread) {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  EXPECT_EQ(pthread_getaffinity_np(thread, sizeof(cores), &cores), 0);
  return CPU_COUNT(&cores);
}

TEST(GiveWayTest, ABorrowerStaysOnTheCoreItWasLentUntilThePoolRests) {
  const int anywhere = NumCores(pthread_self());
  {
    Worker worker;
    while (worker.offers() == 0) std::this_thread::yield();
    const auto give_up = steady_clock::now() + milliseconds(5000);  // a busy machine lends late
    do {
      WorkFor(kSlice);
      GiveWay();
    } while (NumCores(pthread_self()) > 1 && steady_clock::now() < give_up);
    EXPECT_EQ(NumCores(pthread_self()), 1);
  }
  WorkFor(kSlice);
  GiveWay();
  EXPECT_EQ(NumCores(pthread_self()), anywhere);
}

// Neither a borrower that sleeps holds a worker up, nor a worker in a long task a borrower.
TEST(GiveWayTest, NobodyWaitsForLong) {
  {
    Worker worker;
    while (worker.offers() == 0) std::this_thread::yield();
    WorkFor(kSlice);
    GiveWay();
    const int64_t before = worker.offers();
    const auto give_up = steady_clock::now() + std::chrono::seconds(30);
    while (worker.offers() == before && steady_clock::now() < give_up) {
      std::this_thread::sleep_for(milliseconds(1));
    }
    EXPECT_GT(worker.offers(), before);
  }
  BeginRuns();  // and offers nothing
  WorkFor(kSlice);
  GiveWay();
  EndRuns();
}

}  // namespace
}  // namespace polyad
