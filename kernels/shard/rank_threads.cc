#include "kernels/shard/rank_threads.h"

#include <chrono>

namespace polyad {
namespace {

constexpr std::chrono::microseconds kSpin{50};

// Until `value` is no longer `old`.
template <typename T>
void AwaitChange(std::atomic<T>& value, T old) {
  const auto end = std::chrono::steady_clock::now() + kSpin;
  while (value.load(std::memory_order_acquire) == old) {
    if (std::chrono::steady_clock::now() < end) {
      std::this_thread::yield();
    } else {
      value.wait(old, std::memory_order_acquire);
    }
  }
}

}  // namespace

RankThreads::RankThreads(int num_ranks) {
  for (int rank = 1; rank < num_ranks; ++rank) {
    threads_.emplace_back([this, rank] { Work(rank); });
  }
}

RankThreads::~RankThreads() {
  fn_ = nullptr;
  runs_.fetch_add(1, std::memory_order_release);
  runs_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void RankThreads::Run(absl::FunctionRef<void(int rank)> fn) {
  fn_ = &fn;
  working_.store(static_cast<int>(threads_.size()), std::memory_order_relaxed);
  runs_.fetch_add(1, std::memory_order_release);
  runs_.notify_all();
  fn(0);
  for (int left = working_.load(std::memory_order_acquire); left != 0;
       left = working_.load(std::memory_order_acquire)) {
    AwaitChange(working_, left);
  }
}

void RankThreads::Work(int rank) {
  // A run cannot begin before the last one ended at every rank, so none is missed.
  for (uint32_t seen = 0;; ++seen) {
    AwaitChange(runs_, seen);
    if (fn_ == nullptr) return;
    (*fn_)(rank);
    working_.fetch_sub(1, std::memory_order_acq_rel);
    working_.notify_all();
  }
}

}  // namespace polyad
