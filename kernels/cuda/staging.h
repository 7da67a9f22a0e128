#pragma once

// Ordinary host memory on its way to a device or back, through pinned buffers (lanes): while one is
// transferred, the host fills or empties the other. Transfers are done in a queue of their own, so
// that they wait for nobody's launches but those that Follow says.

#include <array>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <span>
#include <vector>

#include "kernels/cuda/device.h"

namespace polyad::cuda {

// Memory of the device; what the host has of several is one after the other.
struct StagedPiece {
  char* memory = nullptr;
  int64_t bytes = 0;
};

class Staging {
 public:
  static constexpr int kNumLanes = 2;
  // Takes the marks first_mark to first_mark + kNumLanes, the last for FollowQueue.
  static constexpr int kNumMarks = kNumLanes + 1;
  Staging(Device& device, QueueKind queue, int first_mark, int64_t lane_bytes);
  ~Staging();
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  bool refused() const;  // pinned memory; nothing else may be called then

  // `from` is read before it returns. -> what to wait for. Any thread.
  int64_t Send(std::span<const StagedPiece> to, const char* from);
  void Await(int64_t sent);  // any thread

  // The rest are one thread's.
  // `to` is written before it returns.
  void Fetch(std::span<const StagedPiece> from, char* to);
  void FollowQueue(QueueKind other);  // transfers from now on come after what is queued there
  void Precede(QueueKind other);      // what is queued there from now on comes after all transfers

 private:
  struct Lane {
    char* pinned = nullptr;
    int mark = 0;
    int64_t transfer = 0;  // its last one
    bool taken = false;    // by a thread that fills or empties it
  };
  struct Part {  // of a piece, at its place in a lane
    char* memory = nullptr;
    int64_t at = 0;
    int64_t bytes = 0;
  };
  // Cuts pieces into parts, a lane's at a time.
  class Cutter;
  Lane& Take();
  void AwaitLane(const Lane& lane, int64_t transfer);
  int64_t Start(Lane& lane, std::span<const Part> parts, bool sends);
  void Release(Lane& lane);

  Device& device_;
  const QueueKind queue_;
  const int64_t lane_bytes_;
  std::mutex mutex_;  // guards what follows, and what is queued
  std::condition_variable released_;
  std::array<Lane, kNumLanes> lanes_;
  int64_t num_started_ = 0;
  int64_t num_done_ = 0;  // as far as somebody waited
  const int other_mark_;
};

}  // namespace polyad::cuda
