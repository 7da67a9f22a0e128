#pragma once

// A thread for each rank of a group, so that each rank's backend is always called by the same one:
// rank 0's is the caller's own. The others spin for 50 us after a run, as the next op comes within
// microseconds, then sleep. One caller at a time.

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"

namespace polyad {

class RankThreads {
 public:
  explicit RankThreads(int num_ranks);
  ~RankThreads();
  RankThreads(const RankThreads&) = delete;
  RankThreads& operator=(const RankThreads&) = delete;

  int num_ranks() const { return static_cast<int>(threads_.size()) + 1; }

  // fn(rank) of all ranks at once; returns when all have returned.
  void Run(absl::FunctionRef<void(int rank)> fn);

 private:
  void Work(int rank);

  const absl::FunctionRef<void(int rank)>* fn_ = nullptr;  // of the run; null: they end
  std::atomic<uint32_t> runs_{0};
  std::atomic<int> working_{0};
  std::vector<std::thread> threads_;
};

}  // namespace polyad
