#include "kernels/shard/host_group.h"

#include <atomic>
#include <numeric>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace polyad::test {
namespace {

// body(communicator) of every rank on a thread of its own, to the end of all.
template <typename Body>
void RunAll(const std::vector<std::unique_ptr<Communicator>>& group, const Body& body) {
  std::vector<std::thread> threads;
  for (const auto& member : group) threads.emplace_back([&] { body(*member); });
  for (std::thread& thread : threads) thread.join();
}

class HostGroupTest : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Sizes, HostGroupTest, testing::Values(1, 2, 3));

TEST_P(HostGroupTest, EveryRankHasTheSumOfAll) {
  const int size = GetParam();
  RunAll(MakeHostGroup(size), [size](Communicator& own) {
    ASSERT_EQ(own.size(), size);
    for (int round = 0; round < 50; ++round) {
      std::vector<float> numbers = {static_cast<float>(own.rank() + round), 1.0f};
      own.AllReduce(numbers);
      const auto sum = static_cast<float>(size * (size - 1) / 2 + size * round);
      EXPECT_EQ(numbers, (std::vector<float>{sum, static_cast<float>(size)}));
    }
  });
}

TEST_P(HostGroupTest, EveryRankHasAllRanksNumbersFromTheirPlaceOrAnother) {
  const int size = GetParam();
  RunAll(MakeHostGroup(size), [size](Communicator& own) {
    const auto first = static_cast<size_t>(2 * own.rank());
    std::vector<float> expected(static_cast<size_t>(2 * size));
    std::iota(expected.begin(), expected.end(), 0.0f);
    for (int round = 0; round < 50; ++round) {
      std::vector<float> all(expected.size(), -1.0f);
      std::copy_n(expected.begin() + static_cast<int64_t>(first), 2, all.data() + first);
      own.AllGather({all.data() + first, 2}, all);
      EXPECT_EQ(all, expected);
      const std::vector<float> elsewhere(all.begin() + static_cast<int64_t>(first),
                                         all.begin() + static_cast<int64_t>(first) + 2);
      std::vector<float> others(expected.size(), -1.0f);
      own.AllGather(elsewhere, others);
      EXPECT_EQ(others, expected);
    }
  });
}

TEST(HostGroupFinishTest, ARankFinishesBeforeOthersReadWhatItHandsIn) {
  std::vector<float> made[2];
  const auto finish = [&made](int rank) {
    made[rank][0] = static_cast<float>(rank + 7);  // what its device had not written yet
  };
  const auto group = MakeHostGroup(2, finish);
  for (auto& numbers : made) numbers.assign(1, 0.0f);
  RunAll(group, [&made](Communicator& own) {
    std::vector<float> all(2);
    own.AllGather(made[own.rank()], all);
    EXPECT_EQ(all, (std::vector<float>{7.0f, 8.0f}));
  });
}

}  // namespace
}  // namespace polyad::test
