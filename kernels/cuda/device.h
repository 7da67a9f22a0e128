#pragma once

// What the CUDA backend asks of a device: memory, copies and two queues of launches. The plugin has
// it over the CUDA runtime; tests have it over the emulator, where memory is out of the host's
// reach whenever it would be on a device. Errors of a queue (a launch that failed, a lost device)
// stay until Wait, which says them once and for all.

#include <cstdint>
#include <string>

#include "kernels/simt/simt.h"

namespace polyad::cuda {

enum class Memory : uint8_t {
  kDevice,  // kernels and copies reach it
  kShared,  // and the host, from Wait until the next launch or copy
  kPinned   // the host's, from which copies may be queued
};

// Queues of the engine thread and of loader threads, one of those at a time.
enum class QueueKind : uint8_t { kEngine, kLoader };

class Device {
 public:
  virtual ~Device() = default;
  virtual std::string name() const = 0;
  // Of an arena that a queue keeps for what calls bring along; 0: each array is allocated by
  // itself.
  virtual int64_t arena_bytes() const { return int64_t{64} << 20; }
  // Aligned to 256 bytes; null where it is refused. Shared memory is zeros, the others are not.
  // Any thread.
  virtual void* Allocate(Memory kind, int64_t bytes) = 0;
  // After what is queued. Any thread.
  virtual void Free(Memory kind, void* memory) = 0;
  // Whether kernels can read at `memory`. Any thread.
  virtual bool Reaches(const void* memory) const = 0;
  // At once, from host memory to memory that nothing queued uses. Any thread.
  virtual void Upload(void* to, const void* from, int64_t bytes) = 0;

  virtual simt::Stream stream(QueueKind queue) = 0;
  // Queued, either way. Host memory is not touched until Wait.
  virtual void Copy(QueueKind queue, void* to, const void* from, int64_t bytes) = 0;
  virtual void Clear(QueueKind queue, void* to, int64_t bytes) = 0;
  // Until all that is queued there is done. -> what went wrong so far; empty: nothing
  virtual std::string Wait(QueueKind queue) = 0;
};

}  // namespace polyad::cuda
