// What the emulator runs and what it refuses, each rule by a kernel that keeps it or breaks it.
// covers: kernels/simt/emulated_block.cc, kernels/simt/emulated_stream.cc, kernels/simt/fiber.cc

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/simt/simt.h"
#include "tests/kernels/simt/schedules.h"

namespace polyad::simt {
namespace {

using ::testing::HasSubstr;

class EmulatorTest : public testing::TestWithParam<EmulatorOptions> {};
INSTANTIATE_TEST_SUITE_P(All, EmulatorTest, testing::ValuesIn(Schedules()), NameOfSchedule);

SIMT_KERNEL(96) void TurnRound(const int* in, int* out) {
  SIMT_SHARED(int, turned, 96);
  const int64_t first = BlockIndex() * 96;
  turned.Store(ThreadIndex(), in[first + ThreadIndex()]);
  BlockBarrier();
  out[first + ThreadIndex()] = turned.Load(95 - ThreadIndex());
}

TEST_P(EmulatorTest, ThreadsOfABlockShareMemoryAcrossABarrier) {
  std::vector<int> in(96 * 5);
  for (size_t i = 0; i < in.size(); ++i) in[i] = static_cast<int>(i);
  std::vector<int> out(in.size());
  EmulatedStream stream(GetParam());
  Launch({5, 96}, &stream, TurnRound, in.data(), out.data());
  ASSERT_EQ(stream.fault(), "");
  for (size_t i = 0; i < out.size(); ++i) EXPECT_EQ(out[i], in[i / 96 * 96 + 95 - i % 96]);
}

SIMT_KERNEL(64) void Vote(float* sums, uint32_t* votes, int* moved) {
  float sum = static_cast<float>(ThreadIndex());
  for (int lanes = 16; lanes > 0; lanes /= 2) sum += ShuffleXor(sum, lanes);
  sums[ThreadIndex()] = sum;
  votes[ThreadIndex()] = Ballot(Lane() % 3 == 0);
  moved[ThreadIndex()] = Shuffle(ThreadIndex(), (Lane() + 1) % kWarpThreads);
}

TEST_P(EmulatorTest, LanesOfAWarpExchangeRegisters) {
  std::vector<float> sums(64);
  std::vector<uint32_t> votes(64);
  std::vector<int> moved(64);
  EmulatedStream stream(GetParam());
  Launch({1, 64}, &stream, Vote, sums.data(), votes.data(), moved.data());
  ASSERT_EQ(stream.fault(), "");
  for (size_t i = 0; i < 64; ++i) {
    EXPECT_EQ(sums[i], i < 32 ? 496.0f : 1520.0f);
    EXPECT_EQ(votes[i], 0x49249249u);
    EXPECT_EQ(moved[i], static_cast<int>(i / 32 * 32 + (i + 1) % 32));
  }
}

SIMT_KERNEL(32) void CopyThrough(const float* in, float* out) {
  SIMT_SHARED(float, buffer, 256);
  CopyAsync16(buffer, Lane() * 4, in + Lane() * 4);
  CommitCopies();
  CopyAsync16(buffer, 128 + Lane() * 4, in + 128 + Lane() * 4, Lane() == 31 ? 4 : 16);
  CommitCopies();
  WaitCopies<1>();
  WarpBarrier();
  out[Lane()] = buffer.Load(127 - Lane());
  WaitCopies<0>();
  WarpBarrier();
  out[32 + Lane()] = buffer.Load(255 - Lane());
}

TEST_P(EmulatorTest, AsynchronousCopiesArriveGroupByGroup) {
  alignas(16) float in[256];
  for (int i = 0; i < 256; ++i) in[i] = static_cast<float>(i);
  float out[64];
  EmulatedStream stream(GetParam());
  Launch({1, 32}, &stream, CopyThrough, in, out);
  ASSERT_EQ(stream.fault(), "");
  for (int i = 0; i < 32; ++i) {
    EXPECT_EQ(out[i], static_cast<float>(127 - i));
    EXPECT_EQ(out[32 + i], i < 3 ? 0.0f : static_cast<float>(255 - i)) << "zeros behind 4 bytes";
  }
}

// --- faults: kernel, what its message says ---

SIMT_KERNEL(64) void BarrierForHalf() {
  if (ThreadIndex() < 32) BlockBarrier();
}
SIMT_KERNEL(64) void TwoBarriers() {
  if (ThreadIndex() < 32) {
    BlockBarrier();
  } else {
    BlockBarrier();
  }
}
SIMT_KERNEL(64) void BarrierAndVote() {
  if (Lane() < 16) {
    BlockBarrier();
  } else {
    Ballot(true);
  }
}
SIMT_KERNEL(32) void VoteAfterEnd() {
  if (Lane() == 7) return;
  Ballot(true);
}
SIMT_KERNEL(32) void TwoWarpOperations() {
  if (Lane() < 16) {
    Ballot(true);
  } else {
    WarpBarrier();
  }
}
SIMT_KERNEL(64) void ReadUnwritten() {
  SIMT_SHARED(float, values, 64);
  if (ThreadIndex() < 63) values.Store(ThreadIndex(), 1.0f);
  BlockBarrier();
  values.Load(ThreadIndex());
}
SIMT_KERNEL(64) void ReadUnordered() {
  SIMT_SHARED(float, values, 64);
  values.Store(ThreadIndex(), 1.0f);
  values.Load(63 - ThreadIndex());
}
SIMT_KERNEL(64) void ReadAcrossWarps() {
  SIMT_SHARED(float, values, 64);
  values.Store(ThreadIndex(), 1.0f);
  WarpBarrier();
  values.Load(63 - ThreadIndex());
}
SIMT_KERNEL(64) void WriteUnordered() {
  SIMT_SHARED(float, values, 64);
  values.Store(ThreadIndex(), 1.0f);
  BlockBarrier();
  values.Load(63 - ThreadIndex());
  values.Store(ThreadIndex(), 2.0f);
}
SIMT_KERNEL(32) void WriteTwice() {
  SIMT_SHARED(float, value, 1);
  value.Store(0, 1.0f);
}
SIMT_KERNEL(32) void Outside() {
  SIMT_SHARED(float, values, 32);
  values.Store(Lane() + 1, 1.0f);
}
SIMT_KERNEL(32) void Misaligned() {
  SIMT_SHARED(Bf16, values, 288);
  values.Store16(Lane() * 9, Words4{});
}
SIMT_KERNEL(32) void MisalignedGlobal(const float* in) { Load16(in + 1); }
SIMT_KERNEL(32) void MisalignedCopy(const float* in) {
  SIMT_SHARED(float, values, 128);
  CopyAsync16(values, Lane() * 4, in + 1);
}
SIMT_KERNEL(32) void CopyNotWaitedFor(const float* in) {
  SIMT_SHARED(float, values, 128);
  CopyAsync16(values, Lane() * 4, in);
  CommitCopies();
  values.Load(Lane() * 4);
}
SIMT_KERNEL(32) void CopyOfOthers(const float* in) {
  SIMT_SHARED(float, values, 128);
  CopyAsync16(values, Lane() * 4, in);
  CommitCopies();
  WaitCopies<0>();
  values.Load(124 - Lane() * 4);
}
SIMT_KERNEL(32) void CopyNotCommitted(const float* in) {
  SIMT_SHARED(float, values, 128);
  CopyAsync16(values, Lane() * 4, in);
  WaitCopies<0>();
  values.Load(Lane() * 4);
}
SIMT_KERNEL(32) void CopyLeft(const float* in) {
  SIMT_SHARED(float, values, 128);
  CopyAsync16(values, Lane() * 4, in);
  CommitCopies();
}
SIMT_KERNEL(32) void TooMuchShared() {
  SIMT_SHARED(float, values, 12 * 1024 + 1);
  values.Store(Lane(), 1.0f);
}
SIMT_KERNEL(32) void DynamicNotAskedFor() { DynamicShared<float>(0, 1).Store(Lane(), 1.0f); }

template <typename... Arguments>
std::string FaultOf(const EmulatorOptions& options, int threads, void (*kernel)(Arguments...),
                    Arguments... arguments) {
  EmulatedStream stream(options);
  Launch({1, threads}, &stream, kernel, arguments...);
  const int64_t launches = stream.num_launches();
  Launch({1, threads}, &stream, kernel, arguments...);
  EXPECT_EQ(stream.num_launches(), launches) << "nothing runs after a fault";
  return stream.fault();
}

TEST_P(EmulatorTest, ThreadsThatNeverMeetAreAFault) {
  EXPECT_THAT(FaultOf(GetParam(), 64, BarrierForHalf), HasSubstr("block barrier"));
  EXPECT_THAT(FaultOf(GetParam(), 64, TwoBarriers), HasSubstr("different block barriers"));
  EXPECT_THAT(FaultOf(GetParam(), 64, BarrierAndVote), HasSubstr("wait for each other"));
  EXPECT_THAT(
      FaultOf(GetParam(), 32, VoteAfterEnd),
      testing::AnyOf(HasSubstr("after the end of lane 7"), HasSubstr("wait for each other")));
  EXPECT_THAT(FaultOf(GetParam(), 32, TwoWarpOperations), HasSubstr("different warp operations"));
}

TEST_P(EmulatorTest, UnorderedUseOfSharedMemoryIsAFaultUnderAnySchedule) {
  EXPECT_THAT(FaultOf(GetParam(), 64, ReadUnwritten), HasSubstr("reads what nobody wrote"));
  EXPECT_THAT(FaultOf(GetParam(), 64, ReadUnordered), HasSubstr("reads what"));
  EXPECT_THAT(FaultOf(GetParam(), 64, ReadAcrossWarps), HasSubstr("reads what"));
  EXPECT_THAT(FaultOf(GetParam(), 64, WriteUnordered), HasSubstr("no barrier between"));
  EXPECT_THAT(FaultOf(GetParam(), 32, WriteTwice), HasSubstr("writes where another thread wrote"));
}

TEST_P(EmulatorTest, AddressesThatAGpuWouldNotTakeAreFaults) {
  alignas(16) static const float in[132] = {};
  EXPECT_THAT(FaultOf(GetParam(), 32, Outside), HasSubstr("outside of a shared array"));
  EXPECT_THAT(FaultOf(GetParam(), 32, Misaligned), HasSubstr("not aligned"));
  EXPECT_THAT(FaultOf<const float*>(GetParam(), 32, MisalignedGlobal, in),
              HasSubstr("not aligned"));
  EXPECT_THAT(FaultOf<const float*>(GetParam(), 32, MisalignedCopy, in), HasSubstr("not aligned"));
  EXPECT_THAT(FaultOf(GetParam(), 32, TooMuchShared), HasSubstr("no room for shared array values"));
  EXPECT_THAT(FaultOf(GetParam(), 32, DynamicNotAskedFor), HasSubstr("did not ask for"));
}

TEST_P(EmulatorTest, AsynchronousCopiesMustBeWaitedForAndSharedByABarrier) {
  alignas(16) static const float in[128] = {};
  EXPECT_THAT(FaultOf<const float*>(GetParam(), 32, CopyNotWaitedFor, in),
              HasSubstr("was not waited for"));
  EXPECT_THAT(FaultOf<const float*>(GetParam(), 32, CopyNotCommitted, in),
              HasSubstr("was not waited for"));
  EXPECT_THAT(FaultOf<const float*>(GetParam(), 32, CopyOfOthers, in), HasSubstr("reads "));
  EXPECT_THAT(FaultOf<const float*>(GetParam(), 32, CopyLeft, in), HasSubstr("under way"));
}

SIMT_KERNEL(32) void Nothing() {}

TEST(EmulatedStreamTest, ShapesThatNoGpuTakesAreFaults) {
  for (const LaunchShape& shape :
       {LaunchShape{0, 32}, {1, 33}, {1, 1056}, {1, 0}, {1, 32, kMaxShared + 1}}) {
    EmulatedStream stream({});
    Launch(shape, &stream, Nothing);
    EXPECT_THAT(stream.fault(), HasSubstr("launch: expected"));
  }
}

}  // namespace
}  // namespace polyad::simt
