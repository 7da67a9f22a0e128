#include "kernels/cuda/device.h"

namespace polyad::cuda {

void* Device::Allocate(Memory kind, int64_t bytes) {
  int64_t before = 0;
  {
    const std::lock_guard lock(recording_mutex_);
    before = num_releases_;
  }
  void* memory = TakeMemory(kind, bytes);
  if (memory != nullptr) return memory;
  {
    std::unique_lock lock(recording_mutex_);
    const bool waits = num_kept_ > 0 && recorder_ != std::this_thread::get_id();
    if (!waits && num_releases_ == before) return nullptr;
    released_.wait(lock, [&] { return num_releases_ != before; });
  }
  return TakeMemory(kind, bytes);
}

void Device::Free(Memory kind, void* memory) {
  if (memory == nullptr) return;
  {
    const std::lock_guard lock(recording_mutex_);
    SIMT_UNLESS("queue.frees_at_once") if (keeps_) {
      kept_.emplace_back(kind, memory);
      ++num_kept_;
      return;
    }
  }
  GiveBack(kind, memory);
}

void Device::StartRecording(simt::Recording& to) {
  {
    const std::lock_guard lock(recording_mutex_);
    keeps_ = true;
    recorder_ = std::this_thread::get_id();
  }
  RecordInto(&to);
}

void Device::StopRecording() { RecordInto(nullptr); }

void Device::ReleaseRecorded() {
  std::vector<std::pair<Memory, void*>> kept;
  {
    const std::lock_guard lock(recording_mutex_);
    keeps_ = false;
    kept.swap(kept_);
  }
  for (const auto& [kind, memory] : kept) GiveBack(kind, memory);
  {
    const std::lock_guard lock(recording_mutex_);
    num_kept_ -= static_cast<int64_t>(kept.size());
    ++num_releases_;
  }
  released_.notify_all();
}

}  // namespace polyad::cuda
