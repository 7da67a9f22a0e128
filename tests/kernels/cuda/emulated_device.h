#pragma once

// A Device whose memory is the host's and whose queues are the emulator's. Unguarded, each array is
// an allocation of its own, for AddressSanitizer to watch. Guarded, the host cannot touch memory
// when it could not on a device: device memory never, shared memory from a launch or copy until
// Wait; whoever tries ends the process. What is copied to the host arrives with Wait. Guarded ones
// have one thread. Faults of the emulator end nothing: tests ask for them.

#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "kernels/cuda/device.h"
#include "kernels/cuda/device_arrays.h"
#include "kernels/simt/emulated_stream.h"

namespace polyad::test {

class EmulatedDevice final : public cuda::Device {
 public:
  EmulatedDevice(const simt::EmulatorOptions& options, bool guarded);
  ~EmulatedDevice() override;

  std::string name() const override { return "emulated"; }
  // A small one, so that tests come to its end.
  int64_t arena_bytes() const override { return guarded_ ? int64_t{1} << 20 : 0; }
  void* Allocate(cuda::Memory kind, int64_t bytes) override;
  void Free(cuda::Memory kind, void* memory) override;
  bool Reaches(const void* memory) const override;
  void Upload(void* to, const void* from, int64_t bytes) override;
  simt::Stream stream(cuda::QueueKind queue) override {
    return queue == cuda::QueueKind::kEngine ? &engine_ : &loader_;
  }
  void Copy(cuda::QueueKind queue, void* to, const void* from, int64_t bytes) override;
  void Clear(cuda::QueueKind queue, void* to, int64_t bytes) override;
  std::string Wait(cuda::QueueKind queue) override;

  // The first fault of the emulator; empty: none.
  const std::string& fault() const {
    return engine_.fault().empty() ? loader_.fault() : engine_.fault();
  }
  int64_t num_launches() const { return engine_.num_launches() + loader_.num_launches(); }

 private:
  // Addresses that the host's rights are taken from and given to as a whole.
  struct Region {
    void* mapped = nullptr;
    char* begin = nullptr;  // in there, at a huge page
    int64_t used = 0;
    bool open = false;
    bool Holds(const void* memory) const;
    void SetOpen(bool now);
  };
  void Work(const std::function<void()>& work);  // as the device does it
  Region& RegionOf(cuda::Memory kind) { return kind == cuda::Memory::kDevice ? device_ : shared_; }

  const bool guarded_;
  simt::EmulatedStream engine_;
  simt::EmulatedStream loader_;
  Region device_;
  Region shared_;
  mutable std::mutex mutex_;
  cuda::DeviceArrays arrays_;                                  // unguarded ones; mutex_ guards them
  std::vector<std::pair<void*, std::vector<char>>> arriving_;  // at the host, with Wait
};

}  // namespace polyad::test
