#include "kernels/cpu/thread_pool.h"

#include <time.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/api/give_way.h"

namespace polyad::cpu {
namespace {

double ProcessCpuMs() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) * 1e-6;
}

TEST(ThreadPoolTest, RunsEveryTaskOnceAndReturnsAfterTheLast) {
  for (int num_threads : {1, 2, 4}) {
    ThreadPool pool(num_threads);
    for (int64_t num_tasks : {0, 1, 2, 3, 7, 100}) {
      std::vector<int> runs(static_cast<size_t>(num_tasks),
                            0);  // plain ints: a race is TSan's to see
      pool.Run(num_tasks, [&](int64_t task, int) { ++runs[static_cast<size_t>(task)]; });
      for (int count : runs) EXPECT_EQ(count, 1);
    }
  }
}

TEST(ThreadPoolTest, WorkerNumbersAreBelowTheThreadCountAndNeverSharedAtOnce) {
  ThreadPool pool(4);
  std::atomic<int> in_use[4] = {};
  std::atomic<int> clashes{0};
  for (int round = 0; round < 200; ++round) {
    pool.Run(16, [&](int64_t, int worker) {
      if (worker < 0 || worker >= 4 || in_use[worker].fetch_add(1) != 0) clashes.fetch_add(1);
      in_use[worker].fetch_sub(1);
    });
  }
  EXPECT_EQ(clashes.load(), 0);
}

TEST(ThreadPoolTest, ManyShortRunsInARowSeeEachOthersWrites) {
  ThreadPool pool(3);
  std::vector<int64_t> values(64, 0);
  constexpr int kRounds = 5000;
  for (int round = 0; round < kRounds; ++round) {
    pool.Run(64, [&](int64_t task, int) {
      values[static_cast<size_t>(task)] += values[static_cast<size_t>(task)] == round ? 1 : 1000000;
    });
  }
  for (int64_t value : values) EXPECT_EQ(value, kRounds);
}

// Runs go on, and every task once, while a background thread borrows a worker's core.
TEST(ThreadPoolTest, LendsACoreBetweenRuns) {
  ThreadPool pool(2);
  std::atomic<bool> borrowed{false};
  std::thread background([&] {
    for (int slice = 0; slice < 5; ++slice) {
      const auto end = std::chrono::steady_clock::now() + kSlice;
      while (std::chrono::steady_clock::now() < end) {
      }
      GiveWay();
    }
    borrowed.store(true);
  });
  int64_t sum = 0;
  int64_t runs = 0;
  for (; !borrowed.load(); ++runs) {
    std::vector<int64_t> values(8, 0);
    pool.Run(8, [&](int64_t task, int) { ++values[static_cast<size_t>(task)]; });
    for (const int64_t value : values) sum += value;
  }
  background.join();
  EXPECT_EQ(sum, 8 * runs);
}

TEST(ThreadPoolTest, ParkedWorkersComeBack) {
  ThreadPool pool(2);
  std::atomic<int> done{0};
  std::atomic<bool> both{false};
  for (int round = 0; round < 1000 && !both.load(); ++round) {
    std::this_thread::sleep_for(
        std::chrono::milliseconds(2));  // long past the spin: the worker is parked
    const std::thread::id caller = std::this_thread::get_id();
    pool.Run(50, [&](int64_t, int) {
      done.fetch_add(1);
      if (std::this_thread::get_id() != caller) both.store(true);
      const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(200);
      while (std::chrono::steady_clock::now() < end) {
      }
    });
  }
  EXPECT_EQ(done.load() % 50, 0);
  EXPECT_TRUE(both.load());
}

TEST(ThreadPoolTest, AnIdlePoolUsesNoProcessorTime) {
  ThreadPool pool(4);
  pool.Run(8, [](int64_t, int) {});
  // A worker that spins is on a core in every window; one that parks may be late on a busy machine.
  double least_ms = 1e9;
  for (int window = 0; window < 50 && least_ms >= 5.0; ++window) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    const double before_ms = ProcessCpuMs();
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    least_ms = std::min(least_ms, ProcessCpuMs() - before_ms);
  }
  EXPECT_LT(least_ms, 5.0);
}

TEST(ThreadPoolTest, ZeroMeansTheCoresOfThisProcess) {
  ThreadPool pool(0);
  EXPECT_GE(pool.num_threads(), 1);
}

}  // namespace
}  // namespace polyad::cpu
