#include "engine/base/worker_pool.h"

#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>
#include <utility>

namespace polyad {
namespace {

// sched_setattr(2), which the C library does not declare.
struct SchedulingAttributes {
  uint32_t size = sizeof(SchedulingAttributes);
  uint32_t policy = SCHED_OTHER;
  uint64_t flags = 0;
  int32_t niceness = 0;
  uint32_t priority = 0;
  uint64_t slice_ns = 0;  // of SCHED_OTHER since Linux 6.12, ignored before
  uint64_t deadline_ns = 0;
  uint64_t period_ns = 0;
};
constexpr uint64_t kSliceNs = 100'000;  // the least there is

// Linux keeps a niceness for each thread. A short slice is what a thread that gives way
// (kernels/api/give_way.h) loses by doing so. Where a policy forbids it, threads share as before.
void StandBack(int niceness) {
  SchedulingAttributes attributes;
  attributes.niceness = niceness;
  attributes.slice_ns = kSliceNs;
  if (syscall(SYS_sched_setattr, 0, &attributes, 0) == 0) return;
  static_cast<void>(setpriority(PRIO_PROCESS, static_cast<id_t>(gettid()), niceness));
}

}  // namespace

WorkerPool::WorkerPool(size_t num_threads, size_t max_queued, int niceness)
    : max_queued_(max_queued), niceness_(niceness) {
  threads_.reserve(num_threads);
  for (size_t i = 0; i < num_threads; ++i) threads_.emplace_back([this] { Work(); });
}

WorkerPool::~WorkerPool() { Close(); }

void WorkerPool::Close() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    closed_ = true;
  }
  ready_.notify_all();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

bool WorkerPool::TryRun(std::function<void()> task) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (closed_ || tasks_.size() >= max_queued_) return false;
    tasks_.push_back(std::move(task));
  }
  ready_.notify_one();
  return true;
}

void WorkerPool::Work() {
  if (niceness_ > 0) StandBack(niceness_);
  while (true) {
    std::function<void()> task;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      ready_.wait(lock, [this] { return closed_ || !tasks_.empty(); });
      if (tasks_.empty()) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    task();
  }
}

}  // namespace polyad
