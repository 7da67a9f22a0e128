#pragma once

// What the CUDA backend asks of a device: memory, copies and queues of launches. The plugin has it
// over the CUDA runtime; tests have it over the emulator, where memory is out of the host's reach
// whenever it would be on a device. Errors of a queue (a launch that failed, a lost device) stay
// until Wait, which says them once and for all.
//
// The engine's launches can be recorded instead of queued (StartRecording), to be queued later,
// one by one or as a graph. Until they are, memory that anybody frees is kept for them.

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "kernels/simt/simt.h"

namespace polyad::cuda {

enum class Memory : uint8_t {
  kDevice,  // kernels and copies reach it
  kShared,  // and the host, from Wait until the next launch or copy
  kPinned   // the host's, from which copies may be queued
};

// Of the engine thread, of loader threads (one of those at a time), of uploads, and of K/V on its
// way to the host or back. One queue's work is done in its order; that of two queues beside each
// other, but where Follow has it otherwise.
enum class QueueKind : uint8_t { kEngine, kLoader, kUpload, kSwap };
inline constexpr int kNumQueues = 4;

inline constexpr int kNumMarks = 6;  // of a device: places in queues that others may wait for

// A recording that is queued as a whole, with one call. Engine thread.
class DeviceGraph {
 public:
  virtual ~DeviceGraph() = default;
  // What it does from the next Launch on: a recording of the shape of the one it was made of, which
  // differs from what it does now in the items `changed`. False: it could not be changed and is of
  // no more use.
  virtual bool Update(const simt::Recording& to, std::span<const int32_t> changed) = 0;
  virtual void Launch() = 0;  // queued with the engine's
};

class Device {
 public:
  virtual ~Device() = default;
  virtual std::string name() const = 0;
  // Of an arena that a queue keeps for what calls bring along; 0: each array is allocated by
  // itself.
  virtual int64_t arena_bytes() const { return int64_t{64} << 20; }
  // Of a pinned buffer between ordinary host memory and the device (staging.h).
  virtual int64_t lane_bytes() const { return int64_t{4} << 20; }
  // Aligned to 256 bytes; null where it is refused. Shared memory is zeros, the others are not.
  // Any thread. Where memory is kept for a recording, another thread than the engine's waits for
  // that before it is refused.
  void* Allocate(Memory kind, int64_t bytes);
  // After what is queued or recorded. Any thread.
  void Free(Memory kind, void* memory);
  // Whether kernels can read at `memory`. Any thread.
  virtual bool Reaches(const void* memory) const = 0;
  // From host memory, which is read before it returns, to memory that nothing queued uses. It is
  // there when AwaitUpload of the number returned is back; each waits for those before it too. Any
  // thread.
  virtual int64_t Upload(void* to, const void* from, int64_t bytes) = 0;
  virtual void AwaitUpload(int64_t upload) = 0;

  virtual simt::Stream stream(QueueKind queue) = 0;  // of kEngine and kLoader; for one launch
  // Queued, either way; host memory but pinned memory is not touched until Wait. Not recorded: not
  // of kEngine while its launches are.
  virtual void Copy(QueueKind queue, void* to, const void* from, int64_t bytes) = 0;
  virtual void Clear(QueueKind queue, void* to, int64_t bytes) = 0;
  // Until all that is queued there is done. -> what went wrong so far; empty: nothing
  virtual std::string Wait(QueueKind queue) = 0;

  // Marks, 0 to kNumMarks - 1, each of one user: the place a queue has come to with all that was
  // queued so far.
  virtual void Mark(int mark, QueueKind queue) = 0;
  virtual void Await(int mark) = 0;  // the host, until the queue is past it. Any thread.
  virtual void Follow(QueueKind queue, int mark) = 0;  // what is queued from now on comes after it

  // The engine's launches and clears go into `to` until StopRecording. Engine thread.
  void StartRecording(simt::Recording& to);
  void StopRecording();
  // What was recorded is queued, or nobody wants it: frees what was kept for it.
  void ReleaseRecorded();
  // Null: it cannot be a graph, or there is no memory for one.
  virtual std::unique_ptr<DeviceGraph> MakeGraph(const simt::Recording& recording) = 0;
  // With the engine's, one by one.
  virtual void Queue(const simt::Recording& recording) = 0;

 protected:
  virtual void* TakeMemory(Memory kind, int64_t bytes) = 0;
  virtual void GiveBack(Memory kind, void* memory) = 0;  // not null
  virtual void RecordInto(simt::Recording* to) = 0;      // null: launches are queued

 private:
  std::mutex recording_mutex_;  // guards what follows
  std::condition_variable released_;
  int64_t num_releases_ = 0;
  bool keeps_ = false;  // from StartRecording until ReleaseRecorded
  std::thread::id recorder_;
  std::vector<std::pair<Memory, void*>> kept_;
  int64_t num_kept_ = 0;  // of them and of those that are being freed
};

}  // namespace polyad::cuda
