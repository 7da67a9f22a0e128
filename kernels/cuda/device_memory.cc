#include "kernels/cuda/device_memory.h"

#include <cstring>

#include "kernels/api/check.h"
#include "kernels/cuda/device_rows.h"

namespace polyad::cuda {
namespace {

constexpr int64_t kAlignment = 256;

}  // namespace

DeviceMemory::~DeviceMemory() {
  for (void* array : arrays_) device_.Free(Memory::kDevice, array);
}

const void* DeviceMemory::KeepBytes(const void* data, int64_t bytes) {
  if (bytes == 0 || refused_) return nullptr;
  void* array = device_.Allocate(Memory::kDevice, bytes);
  refused_ = array == nullptr;
  if (refused_) return nullptr;
  arrays_.push_back(array);
  device_.Upload(array, data, bytes);
  return array;
}

CallQueue::CallQueue(Device& device, QueueKind kind)
    : device_(device), kind_(kind), half_(device.arena_bytes() / 2) {
  if (half_ == 0) return;
  arena_ = static_cast<char*>(device.Allocate(Memory::kDevice, 2 * half_));
  pinned_ = static_cast<char*>(device.Allocate(Memory::kPinned, half_));
  KERNEL_CHECK(arena_ != nullptr && pinned_ != nullptr, "the device has no room for a work arena");
}

CallQueue::~CallQueue() {
  device_.Wait(kind_);
  for (const auto& [memory, pinned] : own_) {
    device_.Free(Memory::kDevice, memory);
    if (pinned != nullptr) device_.Free(Memory::kPinned, pinned);
  }
  if (half_ == 0) return;
  device_.Free(Memory::kDevice, arena_);
  device_.Free(Memory::kPinned, pinned_);
}

void CallQueue::Begin() {
  scratch_bytes_ = 0;
  if (put_bytes_ > half_ / 2 || !own_.empty()) Wait();
}

void CallQueue::Wait() {
  const std::string wrong = device_.Wait(kind_);
  KERNEL_CHECK(wrong.empty(), wrong.c_str());
  for (const auto& [memory, pinned] : own_) {
    device_.Free(Memory::kDevice, memory);
    if (pinned != nullptr) device_.Free(Memory::kPinned, pinned);
  }
  own_.clear();
  put_bytes_ = 0;
}

bool CallQueue::Fits(int64_t bytes, int64_t used) const {
  return used + RoundUp(bytes, kAlignment) <= half_;
}

void* CallQueue::TakeOwn(int64_t bytes) {
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
  device_.Clear(kind_, memory, bytes);
  return memory;
}

}  // namespace polyad::cuda
