#include "kernels/simt/shared_memory.h"

#include "gtest/gtest.h"

namespace polyad::simt {
namespace {

TEST(SharedMemoryTest, ABarrierOfBothOrdersWhatTheyDo) {
  SharedMemory memory;
  memory.Begin(64);
  const Toucher writer{3, 1, 0};
  EXPECT_EQ(memory.Write(0, 4, writer), nullptr);
  EXPECT_EQ(memory.Read(0, 4, writer), nullptr) << "one's own writes are ordered";
  EXPECT_NE(memory.Read(0, 4, {4, 1, 0}), nullptr);
  EXPECT_NE(memory.Read(2, 2, {4, 1, 0}), nullptr) << "half of it is no other";
  EXPECT_EQ(memory.Read(0, 4, {4, 1, 1}), nullptr) << "a barrier of their warp";
  EXPECT_NE(memory.Read(0, 4, {35, 1, 1}), nullptr) << "which is not theirs of another warp";
  EXPECT_EQ(memory.Read(0, 4, {35, 2, 1}), nullptr) << "a barrier of the block";
  EXPECT_NE(memory.Write(0, 4, {36, 2, 1}), nullptr) << "what thread 35 just read";
  EXPECT_EQ(memory.Write(0, 4, {36, 3, 1}), nullptr);
}

TEST(SharedMemoryTest, CopiesUnderWayBelongToNobody) {
  SharedMemory memory;
  memory.Begin(64);
  const Toucher self{0, 0, 0};
  EXPECT_EQ(memory.BeginCopy(16, 16, self), nullptr);
  EXPECT_NE(memory.Read(16, 2, self), nullptr);
  EXPECT_NE(memory.Write(30, 2, self), nullptr);
  EXPECT_EQ(memory.Write(32, 2, self), nullptr);
  memory.EndCopy(16, 16, self);
  EXPECT_EQ(memory.Read(16, 16, self), nullptr);
}

TEST(SharedMemoryTest, ArraysLieBehindEachOtherAndANewBlockHasNone) {
  SharedMemory memory;
  const char keys[3] = {};
  memory.Begin(20);
  EXPECT_EQ(memory.Place(&keys[0], 10), 32);
  EXPECT_EQ(memory.Place(&keys[1], 4), 48);
  EXPECT_EQ(memory.Place(&keys[0], 10), 32);
  EXPECT_EQ(memory.Place(&keys[2], kMaxStaticShared), -1);
  EXPECT_EQ(memory.Write(32, 2, {0, 0, 0}), nullptr);
  memory.Begin(0);
  EXPECT_EQ(memory.Place(&keys[1], 34), 0);
  EXPECT_NE(memory.Read(32, 2, {0, 0, 0}), nullptr) << "written by the block before";
}

}  // namespace
}  // namespace polyad::simt
