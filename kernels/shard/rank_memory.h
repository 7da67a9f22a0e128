#pragma once

// Memory that every rank of a group has a copy of, found by where rank 0's lies: a pointer into
// rank 0's is one into another rank's at the same offset. Thread-safe.

#include <cstdint>
#include <map>
#include <memory>
#include <shared_mutex>
#include <vector>

#include "kernels/api/tensor_view.h"

namespace polyad {

class RankMemory {
 public:
  using Copies = std::vector<std::shared_ptr<void>>;  // each rank's

  // Rank 0's, which keeps the others; it must go before this does.
  std::shared_ptr<void> Add(Copies copies, int64_t bytes);

  // Where a pointer leads at each rank: for host memory that was never added, to itself.
  class Place {
   public:
    void* At(int rank) const {
      if (copies_ == nullptr) return address_;
      return static_cast<char*>((*copies_)[static_cast<size_t>(rank)].get()) + offset_;
    }
    bool is_copied() const { return copies_ != nullptr; }

   private:
    friend class RankMemory;
    const Copies* copies_ = nullptr;  // valid while the memory is
    int64_t offset_ = 0;
    void* address_ = nullptr;
  };
  Place Find(const void* address) const;

 private:
  struct Memory {
    Copies copies;
    int64_t bytes = 0;
  };
  void Remove(const char* begin);

  mutable std::shared_mutex mutex_;
  std::map<const char*, Memory> memory_;  // by rank 0's
};

}  // namespace polyad
