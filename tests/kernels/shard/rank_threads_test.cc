#include "kernels/shard/rank_threads.h"

#include <barrier>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace polyad::test {
namespace {

TEST(RankThreadsTest, EveryRankRunsAtOnceAndOnOneThreadOfItsOwn) {
  for (const int size : {1, 2, 5}) {
    RankThreads threads(size);
    ASSERT_EQ(threads.num_ranks(), size);
    std::vector<std::thread::id> ids(static_cast<size_t>(size));
    for (int run = 0; run < 200; ++run) {
      std::vector<int> counts(static_cast<size_t>(size), 0);
      std::barrier<> together(size);  // never passed by fewer
      threads.Run([&](int rank) {
        together.arrive_and_wait();
        ++counts[static_cast<size_t>(rank)];
        std::thread::id& own = ids[static_cast<size_t>(rank)];
        if (run == 0) own = std::this_thread::get_id();
        EXPECT_EQ(own, std::this_thread::get_id());
      });
      ASSERT_EQ(counts, std::vector<int>(static_cast<size_t>(size), 1));
    }
    EXPECT_EQ(ids[0], std::this_thread::get_id());
  }
}

TEST(RankThreadsTest, TheyEndWhetherOrNotTheyEverRan) { const RankThreads never(3); }

}  // namespace
}  // namespace polyad::test
