#include "tests/kernels/cuda/emulated_device.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <utility>

#include "kernels/api/check.h"
#include "kernels/cuda/device_rows.h"

namespace polyad::test {
namespace {

using cuda::Memory;
using cuda::QueueKind;

constexpr int64_t kRegionBytes = int64_t{8} << 30;  // of addresses
constexpr int64_t kAlignment = 256;
constexpr int64_t kPageBytes = int64_t{2} << 20;  // huge ones: their rights change quickly
constexpr int64_t kMappedBytes = kRegionBytes + kPageBytes;
constexpr int kNan = 0xff;  // bytes of a float or of bf16 numbers that are none

}  // namespace

// As the CUDA runtime's: a launch does what the graph held then, whatever it is changed into.
class EmulatedDevice::Graph final : public cuda::DeviceGraph {
 public:
  Graph(EmulatedDevice& device, const simt::Recording& recording)
      : device_(device), held_(recording) {}
  bool Update(const simt::Recording& to, std::span<const int32_t> changed) override {
    KERNEL_CHECK(to.SameShape(held_), "a graph is changed into one of its own shape");
    if (device_.refused_updates_ > 0) {
      --device_.refused_updates_;
      return false;
    }
    for (const int32_t i : changed) held_.TakeItem(i, to);
    return true;
  }
  void Launch() override { device_.RunLater(std::make_shared<const simt::Recording>(held_)); }

 private:
  EmulatedDevice& device_;
  simt::Recording held_;
};

bool EmulatedDevice::Region::Holds(const void* memory) const {
  const auto* at = static_cast<const char*>(memory);
  return begin != nullptr && at >= begin && at < begin + used;
}

void EmulatedDevice::Region::SetOpen(bool now) {
  if (begin == nullptr || open == now || used == 0) return;
  const int rights = now ? PROT_READ | PROT_WRITE : PROT_NONE;
  const int failed =
      ::mprotect(begin, static_cast<size_t>(cuda::RoundUp(used, kPageBytes)), rights);
  KERNEL_CHECK(failed == 0, "mprotect of emulated device memory");
  open = now;
}

EmulatedDevice::EmulatedDevice(const simt::EmulatorOptions& options, bool guarded)
    : guarded_(guarded), engine_(options), loader_(options) {
  for (const QueueKind queue : {QueueKind::kUpload, QueueKind::kSwap}) StateOf(queue).late = true;
  if (guarded) {
    for (Region* region : {&device_, &shared_}) {
      void* memory = ::mmap(nullptr, static_cast<size_t>(kMappedBytes), PROT_NONE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      KERNEL_CHECK(memory != MAP_FAILED, "addresses for emulated device memory");
      region->mapped = memory;
      const auto address = reinterpret_cast<uintptr_t>(memory);
      region->begin =
          static_cast<char*>(memory) + (cuda::RoundUp(static_cast<int64_t>(address), kPageBytes) -
                                        static_cast<int64_t>(address));
      ::madvise(region->begin, static_cast<size_t>(kRegionBytes), MADV_HUGEPAGE);  // or small ones
    }
    for (const QueueKind queue : {QueueKind::kEngine, QueueKind::kLoader}) {
      StateOf(queue).late = true;
      StreamOf(queue).QueueInto(&StateOf(queue).launched);
    }
  }
  uploads_ = std::make_unique<cuda::Staging>(*this, QueueKind::kUpload, 0, lane_bytes());
}

EmulatedDevice::~EmulatedDevice() {
  uploads_.reset();
  for (const Region* region : {&device_, &shared_}) {
    if (region->mapped != nullptr) ::munmap(region->mapped, static_cast<size_t>(kMappedBytes));
  }
}

void EmulatedDevice::Open() {
  device_.SetOpen(true);
  shared_.SetOpen(true);
}

void EmulatedDevice::Close() {
  bool busy = false;
  for (const QueueState& queue : queues_) busy |= queue.busy;
  device_.SetOpen(false);
  shared_.SetOpen(!busy);
}

// The host may not use shared memory from now on.
void EmulatedDevice::Touch(QueueKind queue) {
  if (!guarded_) return;
  StateOf(queue).busy = queue == QueueKind::kEngine || queue == QueueKind::kLoader;
  Close();
}

void* EmulatedDevice::TakeMemory(Memory kind, int64_t bytes) {
  void* memory = nullptr;
  if (!guarded_ || kind == Memory::kPinned) {
    const int failed =
        ::posix_memalign(&memory, static_cast<size_t>(kAlignment), static_cast<size_t>(bytes));
    KERNEL_CHECK(failed == 0, "host memory for an emulated device");
    if (kind == Memory::kPinned) return memory;
  } else {
    Region& region = RegionOf(kind);
    region.SetOpen(false);
    KERNEL_CHECK(region.used + bytes <= kRegionBytes, "the emulated device is full");
    memory = region.begin + region.used;
    region.used += cuda::RoundUp(bytes, kAlignment);
    Open();
  }
  std::memset(memory, kind == Memory::kShared ? 0 : kNan, static_cast<size_t>(bytes));
  if (guarded_) Close();
  const std::lock_guard lock(mutex_);
  arrays_.Add(memory, bytes);
  return memory;
}

// Guarded memory is never given out again: it becomes NaN, and late users are noticed.
void EmulatedDevice::GiveBack(Memory kind, void* memory) {
  int64_t bytes = 0;
  if (kind != Memory::kPinned) {
    const std::lock_guard lock(mutex_);
    bytes = arrays_.Remove(memory);
  }
  if (guarded_ && kind != Memory::kPinned) {
    Add(QueueKind::kEngine, [=] { std::memset(memory, kNan, static_cast<size_t>(bytes)); });
  } else {
    std::free(memory);
  }
}

bool EmulatedDevice::Reaches(const void* memory) const {
  if (guarded_) return device_.Holds(memory) || shared_.Holds(memory);
  const std::lock_guard lock(mutex_);
  return arrays_.Holds(memory);
}

int64_t EmulatedDevice::Upload(void* to, const void* from, int64_t bytes) {
  const cuda::StagedPiece piece{static_cast<char*>(to), bytes};
  return uploads_->Send(std::span(&piece, 1), static_cast<const char*>(from));
}

simt::Stream EmulatedDevice::stream(QueueKind queue) {
  Touch(queue);  // whoever asks is about to launch
  return &StreamOf(queue);
}

void EmulatedDevice::Add(QueueKind queue, Work work) {
  const std::lock_guard lock(queue_mutex_);
  if (!StateOf(queue).late) {
    if (guarded_) Open();
    work();
    if (guarded_) Close();
    return;
  }
  Seal(queue);
  StateOf(queue).work.push_back(std::move(work));
  ++StateOf(queue).num_queued;
}

void EmulatedDevice::Seal(QueueKind queue) {
  QueueState& state = StateOf(queue);
  if (state.launched.empty()) return;
  const auto launched = std::make_shared<const simt::Recording>(state.launched);
  state.launched.Clear();
  state.work.push_back([this, queue, launched] { Run(queue, *launched); });
  ++state.num_queued;
}

void EmulatedDevice::RunTo(const Place& place) {
  QueueState& state = StateOf(place.queue);
  while (state.num_queued - static_cast<int64_t>(state.work.size()) < place.work) {
    const Work work = std::move(state.work.front());
    state.work.pop_front();
    if (guarded_) Open();
    work();
    if (guarded_) Close();
  }
}

void EmulatedDevice::Run(QueueKind queue, const simt::Recording& recording) {
  for (const simt::Recording::Item& item : recording.items()) {
    if (item.kernel != nullptr) {
      StreamOf(queue).Run(recording, item);
    } else {
      std::memset(item.to, 0, static_cast<size_t>(item.bytes));
    }
  }
}

void EmulatedDevice::RunLater(std::shared_ptr<const simt::Recording> recording) {
  KERNEL_CHECK(!engine_.records(), "what is recorded is queued after the recording");
  Touch(QueueKind::kEngine);
  Add(QueueKind::kEngine,
      [this, recording = std::move(recording)] { Run(QueueKind::kEngine, *recording); });
}

void EmulatedDevice::Copy(QueueKind queue, void* to, const void* from, int64_t bytes) {
  KERNEL_CHECK(!engine_.records() || queue != QueueKind::kEngine, "copies are not recorded");
  Touch(queue);
  Add(queue, [=] { std::memcpy(to, from, static_cast<size_t>(bytes)); });
}

void EmulatedDevice::Clear(QueueKind queue, void* to, int64_t bytes) {
  Touch(queue);
  if (simt::Recording* recording = StreamOf(queue).recording()) {
    recording->AddClear(to, bytes);
  } else {
    std::memset(to, 0, static_cast<size_t>(bytes));
  }
}

std::string EmulatedDevice::Wait(QueueKind queue) {
  const std::lock_guard lock(queue_mutex_);
  Seal(queue);
  RunTo({queue, StateOf(queue).num_queued});
  StateOf(queue).busy = false;
  if (guarded_) Close();
  return "";
}

void EmulatedDevice::Mark(int mark, QueueKind queue) {
  const std::lock_guard lock(queue_mutex_);
  Seal(queue);
  marks_[static_cast<size_t>(mark)] = {queue, StateOf(queue).num_queued};
}

void EmulatedDevice::Await(int mark) {
  const std::lock_guard lock(queue_mutex_);
  RunTo(marks_[static_cast<size_t>(mark)]);
}

void EmulatedDevice::Follow(QueueKind queue, int mark) {
  Place place;
  {
    const std::lock_guard lock(queue_mutex_);
    place = marks_[static_cast<size_t>(mark)];
  }
  Add(queue, [this, place] { RunTo(place); });
}

std::unique_ptr<cuda::DeviceGraph> EmulatedDevice::MakeGraph(const simt::Recording& recording) {
  if (refused_graphs_ == 0) return std::make_unique<Graph>(*this, recording);
  --refused_graphs_;
  return nullptr;
}

void EmulatedDevice::Queue(const simt::Recording& recording) {
  RunLater(std::make_shared<const simt::Recording>(recording));
}

}  // namespace polyad::test
