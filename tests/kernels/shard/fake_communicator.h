#pragma once

// A group of ranks for tests: a thread for each, and counts of what they send. Test-only.

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include "kernels/shard/host_group.h"

namespace polyad::test {

class FakeGroup {
 public:
  explicit FakeGroup(int size) {
    for (std::unique_ptr<Communicator>& member : MakeHostGroup(size)) {
      members_.push_back(std::make_unique<Member>(*this, std::move(member)));
    }
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
    Member(FakeGroup& group, std::unique_ptr<Communicator> member)
        : group_(group), member_(std::move(member)) {}
    int rank() const override { return member_->rank(); }
    int size() const override { return member_->size(); }

    void AllReduce(std::span<float> numbers) override {
      if (rank() == 0) group_.numbers_reduced_ += static_cast<int64_t>(numbers.size());
      member_->AllReduce(numbers);
    }
    void AllGather(std::span<const float> own, std::span<float> all) override {
      if (rank() == 0) group_.numbers_gathered_ += static_cast<int64_t>(own.size());
      member_->AllGather(own, all);
    }

   private:
    FakeGroup& group_;
    const std::unique_ptr<Communicator> member_;
  };

  std::vector<std::unique_ptr<Member>> members_;
  int64_t numbers_reduced_ = 0;   // rank 0's thread alone
  int64_t numbers_gathered_ = 0;  // likewise
};

}  // namespace polyad::test
