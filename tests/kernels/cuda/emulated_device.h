#pragma once

// A Device whose memory is the host's and whose queues are the emulator's. Unguarded, each array is
// an allocation of its own, for AddressSanitizer to watch, and launches run at once. Guarded, the
// host cannot touch memory when it could not on a device: device memory never, shared memory from a
// launch or copy until Wait; whoever tries ends the process. What guarded queues are given is done
// as late as it may be: when somebody waits for it, or something else that is done comes after it.
// So are copies to and from pinned memory in either form: who uses that too early spoils them.
// Freed memory becomes NaN, after what was queued. Guarded ones have one thread. Faults of the
// emulator end nothing: tests ask for them.

#include <array>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "kernels/cuda/device.h"
#include "kernels/cuda/device_arrays.h"
#include "kernels/cuda/staging.h"
#include "kernels/simt/emulated_stream.h"

namespace polyad::test {

class EmulatedDevice final : public cuda::Device {
 public:
  EmulatedDevice(const simt::EmulatorOptions& options, bool guarded);
  ~EmulatedDevice() override;

  std::string name() const override { return "emulated"; }
  // Small ones, so that tests come to their end.
  int64_t arena_bytes() const override { return guarded_ ? int64_t{1} << 20 : 0; }
  int64_t lane_bytes() const override { return int64_t{16} << 10; }
  bool Reaches(const void* memory) const override;
  int64_t Upload(void* to, const void* from, int64_t bytes) override;
  void AwaitUpload(int64_t upload) override { uploads_->Await(upload); }
  simt::Stream stream(cuda::QueueKind queue) override;
  void Copy(cuda::QueueKind queue, void* to, const void* from, int64_t bytes) override;
  void Clear(cuda::QueueKind queue, void* to, int64_t bytes) override;
  std::string Wait(cuda::QueueKind queue) override;
  void Mark(int mark, cuda::QueueKind queue) override;
  void Await(int mark) override;
  void Follow(cuda::QueueKind queue, int mark) override;
  std::unique_ptr<cuda::DeviceGraph> MakeGraph(const simt::Recording& recording) override;
  void Queue(const simt::Recording& recording) override;

  // The first fault of the emulator; empty: none.
  const std::string& fault() const {
    return engine_.fault().empty() ? loader_.fault() : engine_.fault();
  }
  int64_t num_launches() const { return engine_.num_launches() + loader_.num_launches(); }
  // Transfers of uploads and of K/V are done as soon as they may be, not as late.
  void TransferEarly() {
    for (auto queue : {cuda::QueueKind::kUpload, cuda::QueueKind::kSwap}) {
      StateOf(queue).late = false;
    }
  }
  // So many of the next graphs are not made, or not changed.
  void Refuse(int graphs, int updates) {
    refused_graphs_ = graphs;
    refused_updates_ = updates;
  }

 protected:
  void* TakeMemory(cuda::Memory kind, int64_t bytes) override;
  void GiveBack(cuda::Memory kind, void* memory) override;
  void RecordInto(simt::Recording* to) override { engine_.RecordInto(to); }

 private:
  class Graph;
  using Work = std::function<void()>;
  // Addresses that the host's rights are taken from and given to as a whole.
  struct Region {
    void* mapped = nullptr;
    char* begin = nullptr;  // in there, at a huge page
    int64_t used = 0;
    bool open = false;
    bool Holds(const void* memory) const;
    void SetOpen(bool now);
  };
  struct QueueState {
    bool late = false;         // or work is done at once
    std::deque<Work> work;     // that is left to do
    int64_t num_queued = 0;    // works, since the beginning
    simt::Recording launched;  // the last ones queued, of late queues
    bool busy = false;         // of guarded ones: since the last wait for it
  };
  struct Place {
    cuda::QueueKind queue = cuda::QueueKind::kEngine;
    int64_t work = 0;
  };
  QueueState& StateOf(cuda::QueueKind queue) { return queues_[static_cast<size_t>(queue)]; }
  simt::EmulatedStream& StreamOf(cuda::QueueKind queue) {
    return queue == cuda::QueueKind::kEngine ? engine_ : loader_;
  }
  void Open();   // for the device
  void Close();  // again, but for what is the host's
  void Touch(cuda::QueueKind queue);
  void Add(cuda::QueueKind queue, Work work);
  void Seal(cuda::QueueKind queue);  // launches so far are a work
  void RunTo(const Place& place);
  void Run(cuda::QueueKind queue, const simt::Recording& recording);
  void RunLater(std::shared_ptr<const simt::Recording> recording);
  Region& RegionOf(cuda::Memory kind) { return kind == cuda::Memory::kDevice ? device_ : shared_; }

  const bool guarded_;
  simt::EmulatedStream engine_;
  simt::EmulatedStream loader_;
  Region device_;
  Region shared_;
  mutable std::mutex mutex_;
  cuda::DeviceArrays arrays_;  // mutex_ guards them
  std::mutex queue_mutex_;     // guards what follows, of unguarded ones with their threads
  std::array<QueueState, cuda::kNumQueues> queues_;
  std::array<Place, cuda::kNumMarks> marks_;
  int refused_graphs_ = 0;
  int refused_updates_ = 0;
  std::unique_ptr<cuda::Staging> uploads_;
};

}  // namespace polyad::test
