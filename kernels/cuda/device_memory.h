#pragma once

// Memory on a device, in two uses: what a packed weight or op keeps (DeviceMemory), and what one
// backend call brings along and works in (CallQueue).

#include <cstdint>
#include <memory>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernels/api/precision_bytes.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/staging.h"
#include "kernels/cuda/step_graphs.h"

namespace polyad::cuda {

// What an array of T counts as where nothing else is said.
template <typename T>
constexpr Precision PrecisionOfArray() {
  if (std::is_same_v<T, float>) return Precision::kF32;
  return std::is_same_v<T, uint16_t> ? Precision::kBF16 : Precision::kIndex;
}

// Arrays uploaded while something is packed; freed together. A refusal is noted, not reported: ask
// refused() before the pointers are used, which waits until all is there. So nobody can name what
// is still on its way, and no queue has to wait for an upload. One thread until it is packed.
class DeviceMemory {
 public:
  explicit DeviceMemory(Device& device) : device_(device) {}
  ~DeviceMemory();
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  // Null of none. Counted as `precision`.
  template <typename T>
  const T* Keep(std::span<const T> values, Precision precision = PrecisionOfArray<T>()) {
    const auto bytes = static_cast<int64_t>(values.size_bytes());
    bytes_ += {precision, bytes};
    return static_cast<const T*>(KeepBytes(values.data(), bytes));
  }
  template <typename T>
  const T* Keep(const std::vector<T>& values, Precision precision = PrecisionOfArray<T>()) {
    return Keep(std::span<const T>(values), precision);
  }
  bool refused() const;
  const PrecisionBytes& bytes() const { return bytes_; }

 private:
  const void* KeepBytes(const void* data, int64_t bytes);

  Device& device_;
  std::vector<void*> arrays_;
  PrecisionBytes bytes_;
  int64_t upload_ = 0;  // the last one
  bool refused_ = false;
};

// One queue's arena: what a call puts there lives until the call has run. What it works in is the
// next call's too, whose launches come later; what it brings is copied from pinned memory, which is
// used again once those copies are done. One thread.
//
// Launches of a step with few rows are recorded and queued together when somebody waits
// (step_graphs.h); what its calls bring goes ahead of them, in one copy. A call that brings more
// than the arena has room for, or that needs memory, ends the recording, and so does Submit; the
// rest of the call is queued as it comes. After LibraryStream the rest of the step is.
class CallQueue {
 public:
  CallQueue(Device& device, QueueKind kind, const StepGraphOptions& graphs = {});
  ~CallQueue();
  CallQueue(const CallQueue&) = delete;
  CallQueue& operator=(const CallQueue&) = delete;

  simt::Stream stream() { return device_.stream(kind_); }
  simt::Stream LibraryStream();  // for what a library queues, after what is recorded
  Device& device() { return device_; }
  void BeginStep(int64_t rows);  // of its first call
  void Begin();                  // of a call
  void BeginAfterStep();         // of a call that is no step's: it may copy to the host
  void Submit();                 // queues what is recorded
  void Wait();                   // until all calls have run; CHECKs that nothing went wrong
  // For K/V on its way to the host or back. Made when it is first asked for.
  Staging& swaps();
  const StepGraphs::Counts& graph_counts() const { return graphs_.counts(); }

  // A copy of host values.
  template <typename T>
  const T* Put(std::span<const T> values) {
    return static_cast<const T*>(
        PutBytes(values.data(), static_cast<int64_t>(values.size_bytes())));
  }
  template <typename T>
  const T* Put(const std::vector<T>& values) {
    return Put(std::span<const T>(values));
  }
  // The values themselves where kernels reach them, else a copy; null of null.
  template <typename T>
  const T* Reach(const T* values, int64_t count) {
    if (values == nullptr || device_.Reaches(values)) return values;
    return Put(std::span<const T>(values, static_cast<size_t>(count)));
  }
  // Memory to work in, zeros.
  template <typename T>
  T* Scratch(int64_t count) {
    return static_cast<T*>(ScratchBytes(count * static_cast<int64_t>(sizeof(T))));
  }

 private:
  const void* PutBytes(const void* data, int64_t bytes);
  void* ScratchBytes(int64_t bytes);
  bool Fits(int64_t bytes, int64_t used) const;  // into a half of the arena
  void* TakeOwn(int64_t bytes);                  // where it does not
  int64_t ClearedBytes(int64_t bytes) const;
  void Record();  // from now on, where the step is to be

  Device& device_;
  const QueueKind kind_;
  const int64_t half_;         // bytes of the arena for what calls bring, and for what they work in
  char* arena_ = nullptr;      // on the device
  char* pinned_ = nullptr;     // what the first half is copied from
  int64_t put_bytes_ = 0;      // since the last Wait
  int64_t copied_bytes_ = 0;   // of them
  int64_t scratch_bytes_ = 0;  // of this call
  std::vector<std::pair<void*, void*>> own_;  // beside the arena, with their pinned copies
  StepGraphs graphs_;
  simt::Recording recording_;
  bool records_ = false;
  int64_t step_rows_ = 0;  // of a step that is recorded; 0: none is
  int part_ = 0;           // of it, from one Submit to the next
  std::unique_ptr<Staging> swaps_;
};

}  // namespace polyad::cuda
