// What the plugin says to NCCL, to libraries in its place that work on host memory.

#include "kernels/cuda/nccl_communicator.h"

#include <dlfcn.h>

#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace polyad::cuda {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

std::string FakeNccl(int kind) {
  return std::string(POLYAD_FAKE_NCCL) + "/fake_nccl" + std::to_string(kind) + ".so";
}

// On devices 3, 4, ...; the "stream" of rank r is the number r + 1.
std::vector<NcclRank> RanksOf(size_t size) {
  std::vector<NcclRank> ranks;
  for (size_t i = 0; i < size; ++i) {
    ranks.push_back({static_cast<int>(3 + i), [i] { return reinterpret_cast<void*>(i + 1); }});
  }
  return ranks;
}

TEST(NcclLibraryTest, SaysWhatIsMissing) {
  const absl::Status nowhere = NcclLibrary::Open("/nowhere/libnccl.so.2").status();
  EXPECT_EQ(nowhere.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(nowhere.message()), HasSubstr("NCCL /nowhere/libnccl.so.2: "));
  const absl::Status old = NcclLibrary::Open(FakeNccl(1)).status();
  EXPECT_EQ(old.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(old.message()), HasSubstr("it has no ncclAllGather"));
}

TEST(NcclCommunicatorTest, AGroupThatNcclCannotMakeIsAnErrorInItsWords) {
  const auto library = NcclLibrary::Open(FakeNccl(2));
  ASSERT_TRUE(library.ok()) << library.status();
  const absl::Status status = MakeNcclGroup(*library, RanksOf(2)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(status.message(),
            "NCCL: a group of ranks: unhandled system error: no socket interface found");
}

TEST(NcclCommunicatorTest, RanksSumAndGatherOnTheirOwnStreams) {
  for (const size_t size : {size_t{1}, size_t{2}, size_t{3}}) {
    const auto library = NcclLibrary::Open(FakeNccl(0));
    ASSERT_TRUE(library.ok()) << library.status();
    auto group = MakeNcclGroup(*library, RanksOf(size));
    ASSERT_TRUE(group.ok()) << group.status();
    ASSERT_EQ(group->size(), size);
    std::vector<std::thread> threads;
    for (const auto& member : *group) {
      threads.emplace_back([&own = *member, size] {
        const auto rank = static_cast<size_t>(own.rank());
        EXPECT_EQ(static_cast<size_t>(own.size()), size);
        std::vector<float> numbers = {static_cast<float>(rank), 1.0f, 2.0f};
        own.AllReduce(numbers);
        const auto count = static_cast<float>(size);
        EXPECT_EQ(numbers, (std::vector<float>{count * (count - 1) / 2, count, 2 * count}));
        std::vector<float> all(2 * size, -1.0f);
        all[2 * rank] = static_cast<float>(10 * rank);
        all[2 * rank + 1] = static_cast<float>(10 * rank + 1);
        own.AllGather({all.data() + 2 * rank, 2}, all);
        for (size_t i = 0; i < size; ++i) {
          EXPECT_EQ(all[2 * i], static_cast<float>(10 * i));
          EXPECT_EQ(all[2 * i + 1], static_cast<float>(10 * i + 1));
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    group->clear();
    void* handle = dlopen(FakeNccl(0).c_str(), RTLD_NOW | RTLD_NOLOAD);
    ASSERT_NE(handle, nullptr);
    EXPECT_EQ(reinterpret_cast<int (*)()>(dlsym(handle, "FakeNcclComms"))(), 0)
        << "a communicator is left";
    dlclose(handle);
  }
}

TEST(NcclCommunicatorDeathTest, AnErrorOfACallEndsTheProcessWithItsName) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto library = NcclLibrary::Open(FakeNccl(3));
  ASSERT_TRUE(library.ok()) << library.status();
  auto group = MakeNcclGroup(*library, RanksOf(1));
  ASSERT_TRUE(group.ok()) << group.status();
  std::vector<float> numbers(4);
  EXPECT_DEATH((*group)[0]->AllReduce(numbers), "NCCL: all-reduce: remote process exited");
  EXPECT_DEATH((*group)[0]->AllGather({numbers.data(), 4}, numbers), "NCCL: all-gather: remote");
}

// The library itself, where a machine has it: every function is there, and without a driver it
// says so.
TEST(NcclLibraryTest, TheRealOneHasWhatIsAsked) {
  const char* told = std::getenv("POLYAD_NCCL");
  const auto library = NcclLibrary::Open(told != nullptr ? told : kNcclName);
  if (told == nullptr && absl::IsNotFound(library.status())) GTEST_SKIP() << library.status();
  ASSERT_TRUE(library.ok()) << library.status();
  const auto group = MakeNcclGroup(*library, RanksOf(2));
  if (!group.ok()) {  // a machine without devices 3 and 4
    EXPECT_THAT(std::string(group.status().message()), HasSubstr("NCCL: a group of ranks: "));
  }
  EXPECT_THAT((*library)->Saying("a call", 1), Not(IsEmpty()));
}

}  // namespace
}  // namespace polyad::cuda
