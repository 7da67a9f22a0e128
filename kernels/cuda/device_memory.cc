#include "kernels/cuda/device_memory.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "kernels/api/check.h"
#include "kernels/cuda/device_rows.h"

namespace polyad::cuda {
namespace {

constexpr int64_t kAlignment = 256;
// Of a step. One whose adapters are weighed on the host waits often: its first parts are the
// longest that it has, and each needs a graph of its own.
constexpr int kMaxParts = 4;
constexpr int kFirstSwapMark = Staging::kNumMarks;  // those before are the uploads'

}  // namespace

DeviceMemory::~DeviceMemory() {
  device_.AwaitUpload(upload_);
  for (void* array : arrays_) device_.Free(Memory::kDevice, array);
}

const void* DeviceMemory::KeepBytes(const void* data, int64_t bytes) {
  if (bytes == 0 || refused_) return nullptr;
  void* array = device_.Allocate(Memory::kDevice, bytes);
  refused_ = array == nullptr;
  if (refused_) return nullptr;
  arrays_.push_back(array);
  upload_ = device_.Upload(array, data, bytes);
  return array;
}

bool DeviceMemory::refused() const {
  SIMT_UNLESS("queue.uses_what_is_on_its_way") device_.AwaitUpload(upload_);
  return refused_;
}

CallQueue::CallQueue(Device& device, QueueKind kind, const StepGraphOptions& graphs)
    : device_(device), kind_(kind), half_(device.arena_bytes() / 2), graphs_(device, graphs) {
  if (half_ == 0) return;
  arena_ = static_cast<char*>(device.Allocate(Memory::kDevice, 2 * half_));
  pinned_ = static_cast<char*>(device.Allocate(Memory::kPinned, half_));
  KERNEL_CHECK(arena_ != nullptr && pinned_ != nullptr, "the device has no room for a work arena");
}

CallQueue::~CallQueue() {
  Submit();
  device_.Wait(kind_);
  for (const auto& [memory, pinned] : own_) {
    device_.Free(Memory::kDevice, memory);
    device_.Free(Memory::kPinned, pinned);
  }
  device_.Free(Memory::kDevice, arena_);
  device_.Free(Memory::kPinned, pinned_);
}

void CallQueue::BeginStep(int64_t rows) {
  Submit();
  part_ = 0;
  step_rows_ = graphs_.Takes(rows) ? rows : 0;
  Begin();
}

void CallQueue::Begin() {
  scratch_bytes_ = 0;
  if (put_bytes_ > half_ / 2 || !own_.empty()) Wait();
  if (graphs_.IsFull(recording_)) Submit();
  Record();
}

void CallQueue::BeginAfterStep() {
  Submit();
  step_rows_ = 0;
  Begin();
}

// Where a library multiplies in each layer, a graph would have a few launches between two of its
// products: the device had better work while the host plans.
simt::Stream CallQueue::LibraryStream() {
  SIMT_UNLESS("queue.multiplies_before_what_is_recorded") Submit();
  step_rows_ = 0;
  return stream();
}

void CallQueue::Record() {
  if (records_ || step_rows_ == 0 || part_ == kMaxParts) return;
  records_ = true;
  device_.StartRecording(recording_);
}

void CallQueue::Submit() {
  if (!records_) return;
  records_ = false;
  device_.StopRecording();
  if (put_bytes_ > copied_bytes_) {
    SIMT_UNLESS("queue.brings_nothing")
    device_.Copy(kind_, arena_ + copied_bytes_, pinned_ + copied_bytes_,
                 put_bytes_ - copied_bytes_);
    copied_bytes_ = put_bytes_;
  }
  if (!recording_.empty()) graphs_.Run(step_rows_, part_++, recording_);
  recording_.Clear();
  device_.ReleaseRecorded();
}

void CallQueue::Wait() {
  Submit();
  const std::string wrong = device_.Wait(kind_);
  KERNEL_CHECK(wrong.empty(), wrong.c_str());
  for (const auto& [memory, pinned] : own_) {
    device_.Free(Memory::kDevice, memory);
    device_.Free(Memory::kPinned, pinned);
  }
  own_.clear();
  put_bytes_ = copied_bytes_ = 0;
}

Staging& CallQueue::swaps() {
  if (swaps_ == nullptr) {
    swaps_ =
        std::make_unique<Staging>(device_, QueueKind::kSwap, kFirstSwapMark, device_.lane_bytes());
    KERNEL_CHECK(!swaps_->refused(), "no pinned memory for K/V on its way");
  }
  return *swaps_;
}

// Of a recorded clear: up to a quarter more, so that steps whose sizes differ a little (attention's
// partial sums grow with the context) have one shape. What lies behind is nobody's yet, or the next
// array's, which is cleared later.
int64_t CallQueue::ClearedBytes(int64_t bytes) const {
  const auto unit = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(bytes))) / 4;
  const int64_t room = half_ - (scratch_bytes_ - RoundUp(bytes, kAlignment));
  return std::min(RoundUp(bytes, std::max(unit, kAlignment)), room);
}

bool CallQueue::Fits(int64_t bytes, int64_t used) const {
  return used + RoundUp(bytes, kAlignment) <= half_;
}

void* CallQueue::TakeOwn(int64_t bytes) {
  Submit();
  void* memory = device_.Allocate(Memory::kDevice, bytes);
  KERNEL_CHECK(memory != nullptr, "the device has no room for what a call works in");
  own_.emplace_back(memory, nullptr);
  return memory;
}

const void* CallQueue::PutBytes(const void* data, int64_t bytes) {
  if (bytes == 0) return nullptr;
  void* from = pinned_ + put_bytes_;
  void* to = arena_ + put_bytes_;
  if (Fits(bytes, put_bytes_)) {
    put_bytes_ += RoundUp(bytes, kAlignment);
  } else {
    to = TakeOwn(bytes);
    from = own_.back().second = device_.Allocate(Memory::kPinned, bytes);
    KERNEL_CHECK(from != nullptr, "no pinned memory for what a call brings");
  }
  std::memcpy(from, data, static_cast<size_t>(bytes));
  if (records_) return to;  // Submit copies it
  copied_bytes_ = put_bytes_;
  device_.Copy(kind_, to, from, bytes);
  return to;
}

void* CallQueue::ScratchBytes(int64_t bytes) {
  if (bytes == 0) return nullptr;
  void* memory = arena_ + half_ + scratch_bytes_;
  if (Fits(bytes, scratch_bytes_)) {
    scratch_bytes_ += RoundUp(bytes, kAlignment);
  } else {
    memory = TakeOwn(bytes);
  }
  device_.Clear(kind_, memory, records_ ? ClearedBytes(bytes) : bytes);
  return memory;
}

}  // namespace polyad::cuda
