// Host memory on its way to a device and back, by several threads; and memory that is freed while
// launches are recorded, and asked for by others then.

#include "kernels/cuda/staging.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <numeric>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "tests/kernels/cuda/emulated_device.h"

namespace polyad::test {
namespace {

using cuda::Memory;
using cuda::QueueKind;

constexpr int64_t kLane = 256;  // of the tests' own

std::vector<char> Bytes(int64_t count, int seed) {
  std::vector<char> bytes(static_cast<size_t>(count));
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 31 + i / 256 + seed);
  return bytes;
}

TEST(StagingTest, PiecesOfAnySizeArriveInTheirOrder) {
  for (const bool early : {false, true}) {
    EmulatedDevice device({}, /*guarded=*/false);
    if (early) device.TransferEarly();
    cuda::Staging staging(device, QueueKind::kSwap, 3, kLane);
    ASSERT_FALSE(staging.refused());
    for (const std::vector<int64_t>& sizes : std::vector<std::vector<int64_t>>{
             {1}, {256}, {257}, {100, 0, 156, 1}, {5000, 3, 700}, {0}, {}, {64, 64, 64, 64, 64}}) {
      std::vector<cuda::StagedPiece> pieces;
      for (const int64_t size : sizes) {
        pieces.push_back({static_cast<char*>(device.Allocate(Memory::kDevice, size + 1)), size});
        pieces.back().memory[size] = 77;
      }
      const int64_t all = std::accumulate(sizes.begin(), sizes.end(), int64_t{0});
      const std::vector<char> sent = Bytes(all, static_cast<int>(all));
      staging.Await(staging.Send(pieces, sent.data()));
      const char* at = sent.data();
      for (const cuda::StagedPiece& piece : pieces) {
        EXPECT_TRUE(std::equal(piece.memory, piece.memory + piece.bytes, at));
        EXPECT_EQ(piece.memory[piece.bytes], 77) << "and nothing behind it";
        at += piece.bytes;
      }
      std::vector<char> fetched(sent.size());
      staging.Fetch(pieces, fetched.data());
      EXPECT_EQ(fetched, sent);
      for (const cuda::StagedPiece& piece : pieces) device.Free(Memory::kDevice, piece.memory);
    }
  }
}

TEST(StagingTest, ThreadsThatUploadDoNotDisturbEachOther) {
  EmulatedDevice device({}, /*guarded=*/false);
  constexpr int kThreads = 3;
  constexpr int kUploads = 20;
  std::atomic<int> num_wrong = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kUploads; ++i) {
        // Up to five lanes of the device's.
        const int64_t size = 1 + (i * 4099 + t * 977) % (5 * device.lane_bytes());
        std::vector<char> sent = Bytes(size, 16 * t + i);
        auto* memory = static_cast<char*>(device.Allocate(Memory::kDevice, size));
        const int64_t upload = device.Upload(memory, sent.data(), size);
        const std::vector<char> kept = sent;
        std::fill(sent.begin(), sent.end(), 0);  // it was read
        device.AwaitUpload(upload);
        if (std::memcmp(memory, kept.data(), kept.size()) != 0) ++num_wrong;
        device.Free(Memory::kDevice, memory);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(num_wrong, 0);
}

// One array's worth of memory.
class FullDevice final : public cuda::Device {
 public:
  std::string name() const override { return "full"; }
  bool Reaches(const void*) const override { return false; }
  int64_t Upload(void*, const void*, int64_t) override { return 0; }
  void AwaitUpload(int64_t) override {}
  simt::Stream stream(QueueKind) override { return nullptr; }
  void Copy(QueueKind, void*, const void*, int64_t) override {}
  void Clear(QueueKind, void*, int64_t) override {}
  std::string Wait(QueueKind) override { return ""; }
  void Mark(int, QueueKind) override {}
  void Await(int) override {}
  void Follow(QueueKind, int) override {}
  std::unique_ptr<cuda::DeviceGraph> MakeGraph(const simt::Recording&) override { return nullptr; }
  void Queue(const simt::Recording&) override {}

  std::atomic<int> num_refused = 0;
  std::atomic<bool> taken = false;

 protected:
  void* TakeMemory(Memory, int64_t) override {
    if (!taken.exchange(true)) return &array_;
    ++num_refused;
    return nullptr;
  }
  void GiveBack(Memory, void*) override { taken = false; }
  void RecordInto(simt::Recording*) override {}

 private:
  int64_t array_ = 0;
};

TEST(RecordedFreeTest, IsDoneWhenTheRecordingIsQueued) {
  FullDevice device;
  simt::Recording recording;
  void* memory = device.Allocate(Memory::kDevice, 8);
  device.StartRecording(recording);
  device.Free(Memory::kDevice, memory);
  EXPECT_TRUE(device.taken);
  device.StopRecording();
  EXPECT_TRUE(device.taken) << "what was recorded is not queued yet";
  EXPECT_EQ(device.Allocate(Memory::kDevice, 8), nullptr) << "who records does not wait";
  device.ReleaseRecorded();
  EXPECT_FALSE(device.taken);
  device.Free(Memory::kDevice, device.Allocate(Memory::kDevice, 8));
  EXPECT_FALSE(device.taken) << "at once again";
}

TEST(RecordedFreeTest, OtherThreadsWaitForMemoryThatIsKept) {
  FullDevice device;
  simt::Recording recording;
  void* memory = device.Allocate(Memory::kDevice, 8);
  device.StartRecording(recording);
  device.Free(Memory::kDevice, memory);
  void* got = nullptr;
  std::thread loader([&] { got = device.Allocate(Memory::kDevice, 8); });
  while (device.num_refused == 0) std::this_thread::yield();
  EXPECT_TRUE(device.taken);
  device.StopRecording();
  device.ReleaseRecorded();
  loader.join();
  EXPECT_EQ(got, memory);
  EXPECT_EQ(device.Allocate(Memory::kDevice, 8), nullptr) << "nothing is kept: refused at once";
}

}  // namespace
}  // namespace polyad::test
