#include "kernels/cpu/thread_pool.h"

#include <immintrin.h>
#include <sched.h>

#include <chrono>

#include "kernels/api/give_way.h"

namespace polyad::cpu {
namespace {

using std::chrono::steady_clock;

// A worker's wait for the next run: somewhat more than the 34 us that waking a parked one costs the
// caller (measured, docs/notes/0002), which is what spinning at most doubles.
constexpr std::chrono::microseconds kSpin{50};
constexpr std::chrono::microseconds kJoinSpin{
    4};  // a wait for another thread's last task, before the core is offered
constexpr int kPausesPerLook = 8;
constexpr uint32_t kOpen = 1;
constexpr uint32_t kOneInside = 2;

int NumUsableCores() {
  cpu_set_t cores;
  if (sched_getaffinity(0, sizeof(cores), &cores) != 0) return 1;
  const int count = CPU_COUNT(&cores);
  return count > 0 ? count : 1;
}

// Polls `done` for at most `limit`; true when it came.
template <typename Predicate>
bool SpinFor(std::chrono::microseconds limit, Predicate done) {
  const steady_clock::time_point give_up = steady_clock::now() + limit;
  do {
    for (int i = 0; i < kPausesPerLook; ++i) {
      if (done()) return true;
      _mm_pause();
    }
  } while (steady_clock::now() < give_up);
  return done();
}

}  // namespace

ThreadPool::ThreadPool(int num_threads)
    : num_threads_(num_threads > 0 ? num_threads : NumUsableCores()) {
  for (int worker = 1; worker < num_threads_; ++worker) {
    threads_.emplace_back([this, worker] { Work(worker); });
  }
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard lock(mutex_);
    stopping_.store(true);
    epoch_.fetch_add(1);
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadPool::Run(int64_t num_tasks, Task fn) {
  if (num_threads_ == 1 || num_tasks <= 1) {
    for (int64_t task = 0; task < num_tasks; ++task) fn(task, 0);
    return;
  }
  job_ = {num_tasks, &fn};
  next_task_.store(0, std::memory_order_relaxed);
  gate_.store(kOpen, std::memory_order_release);
  epoch_.fetch_add(
      1);  // seq_cst, as num_parked_ is: a worker that parks sees the epoch or is seen parked
  if (num_parked_.load() > 0) {
    std::lock_guard lock(mutex_);
    wake_.notify_all();
  }
  TakeTasks(job_, 0);
  gate_.fetch_sub(kOpen, std::memory_order_acq_rel);
  Await([this] { return gate_.load(std::memory_order_acquire) == 0; });
}

void ThreadPool::Await(absl::FunctionRef<bool()> done) {
  while (!SpinFor(kJoinSpin, done)) {
    std::this_thread::yield();  // whoever is waited for may have been put aside: give it this core
  }
}

void ThreadPool::TakeTasks(const Job& job, int worker) {
  while (true) {
    const int64_t task = next_task_.fetch_add(1, std::memory_order_relaxed);
    if (task >= job.num_tasks) return;
    (*job.fn)(task, worker);
  }
}

// Joins the current run unless it is over; whoever enters is waited for.
bool ThreadPool::Enter() {
  uint32_t gate = gate_.load(std::memory_order_relaxed);
  while ((gate & kOpen) != 0) {
    if (gate_.compare_exchange_weak(gate, gate + kOneInside, std::memory_order_acquire,
                                    std::memory_order_relaxed)) {
      return true;
    }
  }
  return false;
}

// Returns the first epoch other than `seen`: spins, then parks.
uint64_t ThreadPool::AwaitRun(uint64_t seen) {
  if (!SpinFor(kSpin, [&] { return epoch_.load(std::memory_order_acquire) != seen; })) {
    EndRuns();
    {
      std::unique_lock lock(mutex_);
      num_parked_.fetch_add(1);
      wake_.wait(lock, [&] { return epoch_.load() != seen; });
      num_parked_.fetch_sub(1);
    }
    BeginRuns();
  }
  return epoch_.load(std::memory_order_acquire);
}

void ThreadPool::Work(int worker) {
  uint64_t seen = 0;
  BeginRuns();
  while (true) {
    seen = AwaitRun(seen);
    if (stopping_.load()) break;
    if (!Enter()) continue;
    TakeTasks(job_, worker);
    gate_.fetch_sub(kOneInside, std::memory_order_release);
    if (worker == 1) OfferCore();
  }
  EndRuns();
}

}  // namespace polyad::cpu
