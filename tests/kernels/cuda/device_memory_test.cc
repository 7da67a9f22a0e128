// Memory on a device, where it is short and where it is plenty, over a device that counts.

#include "kernels/cuda/device_memory.h"

#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cuda/cuda_backend.h"
#include "tests/kernels/cuda/fake_matmuls.h"
#include "tests/kernels/stored_weight.h"

namespace polyad::cuda {
namespace {

struct Counts {
  int64_t bytes = 0;  // taken and not freed, of all kinds
  int64_t most = int64_t{1} << 20;
  int num_waits = 0;
};

// Host memory up to a limit; copies happen at once.
class CountingDevice final : public Device {
 public:
  CountingDevice(Counts& counts, int64_t arena) : counts_(counts), arena_(arena) {}
  std::string name() const override { return "counting"; }
  int64_t arena_bytes() const override { return arena_; }
  void* TakeMemory(Memory, int64_t bytes) override {
    if (counts_.bytes + bytes > counts_.most) return nullptr;
    counts_.bytes += bytes;
    void* memory = std::calloc(static_cast<size_t>(bytes), 1);
    arrays_[memory] = bytes;
    return memory;
  }
  void GiveBack(Memory, void* memory) override {
    counts_.bytes -= arrays_.at(memory);
    arrays_.erase(memory);
    std::free(memory);
  }
  bool Reaches(const void*) const override { return false; }
  int64_t Upload(void* to, const void* from, int64_t bytes) override {
    std::memcpy(to, from, static_cast<size_t>(bytes));
    return 0;
  }
  void AwaitUpload(int64_t) override {}
  simt::Stream stream(QueueKind) override { return nullptr; }
  void Copy(QueueKind, void* to, const void* from, int64_t bytes) override {
    std::memcpy(to, from, static_cast<size_t>(bytes));
  }
  void Clear(QueueKind, void* to, int64_t bytes) override {
    std::memset(to, 0, static_cast<size_t>(bytes));
  }
  std::string Wait(QueueKind) override {
    ++counts_.num_waits;
    return "";
  }
  void Mark(int, QueueKind) override {}
  void Await(int) override {}
  void Follow(QueueKind, int) override {}
  std::unique_ptr<DeviceGraph> MakeGraph(const simt::Recording&) override { return nullptr; }
  void Queue(const simt::Recording&) override {}
  void RecordInto(simt::Recording*) override {}

 private:
  Counts& counts_;
  const int64_t arena_;
  std::map<void*, int64_t> arrays_;
};

TEST(DeviceMemoryTest, NotesARefusalAndGivesAllBack) {
  Counts counts;
  counts.most = 1000;
  CountingDevice device(counts, 0);
  {
    DeviceMemory memory(device);
    const float* kept = memory.Keep(std::vector<float>(200, 2.5f));
    ASSERT_NE(kept, nullptr);
    EXPECT_EQ(kept[199], 2.5f);
    EXPECT_EQ(memory.Keep(std::vector<float>()), nullptr);
    EXPECT_FALSE(memory.refused());
    EXPECT_EQ(memory.Keep(std::vector<float>(100)), nullptr);
    EXPECT_TRUE(memory.refused());
    EXPECT_EQ(memory.Keep(std::vector<float>(1)), nullptr) << "after a refusal nothing is kept";
    EXPECT_EQ(counts.bytes, 800);
  }
  EXPECT_EQ(counts.bytes, 0);
}

TEST(CallQueueTest, WhatCallsBringLivesUntilTheyHaveRun) {
  Counts counts;
  CountingDevice device(counts, 4096);
  {
    CallQueue queue(device, QueueKind::kEngine);
    EXPECT_EQ(counts.bytes, 4096 + 2048);
    std::vector<const int32_t*> put;
    for (int32_t i = 0; i < 4; ++i) {  // 256 bytes each, half of what calls may bring
      queue.Begin();
      put.push_back(queue.Put(std::vector<int32_t>(3, i)));
    }
    EXPECT_EQ(counts.num_waits, 0);
    for (int32_t i = 0; i < 4; ++i) EXPECT_EQ(put[static_cast<size_t>(i)][2], i);
    queue.Put(std::vector<int32_t>(1, 9));
    queue.Begin();  // more than half is taken: the next one begins from the front
    EXPECT_EQ(counts.num_waits, 1);
    EXPECT_EQ(queue.Put(std::vector<int32_t>(1, 10)), put[0]);
  }
  EXPECT_EQ(counts.bytes, 0);
}

TEST(CallQueueTest, CallsWorkInTheSameMemoryWithoutWaiting) {
  Counts counts;
  CountingDevice device(counts, 4096);
  CallQueue queue(device, QueueKind::kEngine);
  float* first = nullptr;
  for (int i = 0; i < 100; ++i) {
    queue.Begin();
    float* work = queue.Scratch<float>(100);
    if (i == 0) first = work;
    EXPECT_EQ(work, first);
    EXPECT_EQ(work[99], 0.0f) << "it is zeros again";
    work[99] = 1.0f;
    EXPECT_EQ(queue.Scratch<float>(100), work + 128) << "one after the other in a call";
  }
  EXPECT_EQ(counts.num_waits, 0);
}

TEST(CallQueueTest, WhatTheArenaHasNoRoomForHasMemoryOfItsOwn) {
  Counts counts;
  CountingDevice device(counts, 1024);
  {
    CallQueue queue(device, QueueKind::kEngine);
    queue.Begin();
    const float* large = queue.Put(std::vector<float>(1000, 1.5f));
    EXPECT_EQ(large[999], 1.5f);
    float* work = queue.Scratch<float>(2000);
    EXPECT_EQ(work[1999], 0.0f);
    EXPECT_EQ(counts.bytes, 1024 + 512 + 2 * 4000 + 8000);
    queue.Begin();  // they are given back once the call has run
    EXPECT_EQ(counts.num_waits, 1);
    EXPECT_EQ(counts.bytes, 1024 + 512);
  }
  EXPECT_EQ(counts.bytes, 0);
}

TEST(CudaBackendTest, SaysThatTheDeviceHasNoMemoryLeft) {
  Counts counts;
  counts.most = 2048;
  {
    CudaBackend backend(ComputeMode::kF32, std::make_unique<CountingDevice>(counts, 256));
    const int64_t arenas = counts.bytes;
    EXPECT_TRUE(absl::IsResourceExhausted(backend.Allocate(4096).status()));
    const test::StoredWeight weight = test::MakeWeight(DType::kBF16, 64, 64, 1);
    const TensorView view = weight.view();
    EXPECT_TRUE(absl::IsResourceExhausted(backend.PackMatrix(std::span(&view, 1)).status()));
    PackShare share;
    EXPECT_TRUE(absl::IsResourceExhausted(backend.PackDelta(Dense{view}, share).status()));
    KvShape shape;
    shape.num_layers = shape.num_kv_heads = 1;
    shape.head_dim = 64;
    EXPECT_TRUE(absl::IsResourceExhausted(backend.AllocateKv(shape, 4).status()));
    shape.head_dim = 512;
    EXPECT_TRUE(absl::IsUnimplemented(backend.KvBlockBytes(shape).status()));
    EXPECT_EQ(counts.bytes, arenas) << "a refusal keeps nothing";
    const auto memory = backend.Allocate(256);
    ASSERT_TRUE(memory.ok()) << memory.status();
    EXPECT_EQ(counts.bytes, arenas + 256);
  }
  EXPECT_EQ(counts.bytes, 0);
}

// A weight for a library takes 8 KiB here, what its shape is tried in 192.
TEST(CudaBackendTest, AShapeThatThereIsNoMemoryToTryStaysWithOwnKernels) {
  Counts counts;
  counts.most = 100 << 10;
  test::FakeMatmuls* library = nullptr;
  CudaBackend backend(ComputeMode::kBF16, std::make_unique<CountingDevice>(counts, 256),
                      test::FakeProducts({test::FakeWay()}, PlainProducts::kMostRows, library));
  const int64_t arenas = counts.bytes;
  const test::StoredWeight weight = test::MakeWeight(DType::kBF16, 64, 64, 1);
  const TensorView view = weight.view();
  const auto packed = backend.PackMatrix(std::span(&view, 1));
  ASSERT_TRUE(packed.ok()) << packed.status();
  EXPECT_EQ(backend.info().isa,
            "counting, fake 1.0 for 0 of 1 weight shapes; own kernels for [64, 64]: the device has "
            "no memory to try it in");
  EXPECT_EQ(library->calls()[0], 0);
  EXPECT_EQ(counts.bytes, arenas + (8 << 10)) << "one copy of the weight, in tiles";
  counts.most = counts.bytes + (4 << 10);
  const test::StoredWeight other = test::MakeWeight(DType::kBF16, 32, 128, 1);
  const TensorView second = other.view();
  EXPECT_TRUE(absl::IsResourceExhausted(backend.PackMatrix(std::span(&second, 1)).status()));
}

}  // namespace
}  // namespace polyad::cuda
