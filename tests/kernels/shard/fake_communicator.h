#pragma once

// A tensor-parallel group within a process: a thread for each rank. Test-only.

#include <barrier>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <thread>
#include <vector>

#include "kernels/shard/communicator.h"

namespace polyad::test {

class FakeGroup {
 public:
  explicit FakeGroup(int size)
      : size_(size), barrier_(size), handed_in_(static_cast<size_t>(size)) {
    for (int rank = 0; rank < size; ++rank)
      members_.push_back(std::make_unique<Member>(*this, rank));
  }

  // body(communicator) of every rank, each on a thread of its own, to the end of all.
  void Run(const std::function<void(Communicator&)>& body) {
    std::vector<std::thread> threads;
    for (const std::unique_ptr<Member>& member : members_) {
      threads.emplace_back([&body, &member] { body(*member); });
    }
    for (std::thread& thread : threads) thread.join();
  }

  // What rank 0 handed in so far.
  int64_t numbers_reduced() const { return numbers_reduced_; }
  int64_t numbers_gathered() const { return numbers_gathered_; }

 private:
  class Member final : public Communicator {
   public:
    Member(FakeGroup& group, int rank) : group_(group), rank_(rank) {}
    int rank() const override { return rank_; }
    int size() const override { return group_.size_; }

    void AllReduce(std::span<float> numbers) override {
      if (rank_ == 0) group_.numbers_reduced_ += static_cast<int64_t>(numbers.size());
      HandIn(numbers);
      std::vector<float> sums(numbers.size(), 0.0f);
      for (const std::span<const float> theirs : group_.handed_in_) {
        for (size_t i = 0; i < sums.size(); ++i) sums[i] += theirs[i];
      }
      group_.barrier_.arrive_and_wait();  // all have read
      std::copy(sums.begin(), sums.end(), numbers.begin());
    }

    void AllGather(std::span<const float> own, std::span<float> all) override {
      if (rank_ == 0) group_.numbers_gathered_ += static_cast<int64_t>(own.size());
      HandIn(own);
      auto to = all.begin();
      for (const std::span<const float> theirs : group_.handed_in_) {
        to = std::copy(theirs.begin(), theirs.end(), to);
      }
      group_.barrier_.arrive_and_wait();
    }

   private:
    void HandIn(std::span<const float> numbers) {
      group_.handed_in_[static_cast<size_t>(rank_)] = numbers;
      group_.barrier_.arrive_and_wait();
    }

    FakeGroup& group_;
    const int rank_;
  };

  const int size_;
  std::barrier<> barrier_;
  std::vector<std::span<const float>> handed_in_;
  std::vector<std::unique_ptr<Member>> members_;
  int64_t numbers_reduced_ = 0;   // rank 0's thread alone
  int64_t numbers_gathered_ = 0;  // likewise
};

}  // namespace polyad::test
