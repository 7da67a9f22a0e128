#include "tests/kernels/cuda/emulated_device.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>

#include "kernels/api/check.h"
#include "kernels/cuda/device_rows.h"

namespace polyad::test {
namespace {

constexpr int64_t kRegionBytes = int64_t{8} << 30;  // of addresses
constexpr int64_t kAlignment = 256;
constexpr int64_t kPageBytes = int64_t{2} << 20;  // huge ones: their rights change quickly
constexpr int64_t kMappedBytes = kRegionBytes + kPageBytes;
constexpr int kNan = 0xff;  // bytes of a float or of bf16 numbers that are none

}  // namespace

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
  if (!guarded) return;
  for (Region* region : {&device_, &shared_}) {
    void* memory = ::mmap(nullptr, static_cast<size_t>(kMappedBytes), PROT_NONE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    KERNEL_CHECK(memory != MAP_FAILED, "addresses for emulated device memory");
    region->mapped = memory;
    const auto address = reinterpret_cast<uintptr_t>(memory);
    region->begin =
        static_cast<char*>(memory) +
        (cuda::RoundUp(static_cast<int64_t>(address), kPageBytes) - static_cast<int64_t>(address));
    ::madvise(region->begin, static_cast<size_t>(kRegionBytes), MADV_HUGEPAGE);  // or small ones
  }
  for (simt::EmulatedStream* stream : {&engine_, &loader_}) {
    stream->SetHooks(
        [this] {
          device_.SetOpen(true);
          shared_.SetOpen(true);
        },
        [this] {
          device_.SetOpen(false);
          shared_.SetOpen(false);
        });
  }
}

EmulatedDevice::~EmulatedDevice() {
  for (const Region* region : {&device_, &shared_}) {
    if (region->mapped != nullptr) ::munmap(region->mapped, static_cast<size_t>(kMappedBytes));
  }
}

void EmulatedDevice::Work(const std::function<void()>& work) {
  device_.SetOpen(true);
  shared_.SetOpen(true);
  work();
  device_.SetOpen(false);
  shared_.SetOpen(false);
}

void* EmulatedDevice::Allocate(cuda::Memory kind, int64_t bytes) {
  if (!guarded_ || kind == cuda::Memory::kPinned) {
    void* memory = nullptr;
    const int failed =
        ::posix_memalign(&memory, static_cast<size_t>(kAlignment), static_cast<size_t>(bytes));
    KERNEL_CHECK(failed == 0, "host memory for an emulated device");
    if (kind == cuda::Memory::kPinned) return memory;
    std::memset(memory, kind == cuda::Memory::kShared ? 0 : kNan, static_cast<size_t>(bytes));
    const std::lock_guard lock(mutex_);
    arrays_.Add(memory, bytes);
    return memory;
  }
  Region& region = RegionOf(kind);
  const bool was_open = region.open;
  region.SetOpen(false);
  KERNEL_CHECK(region.used + bytes <= kRegionBytes, "the emulated device is full");
  char* memory = region.begin + region.used;
  region.used += cuda::RoundUp(bytes, kAlignment);
  if (kind == cuda::Memory::kDevice) {
    region.SetOpen(true);
    std::memset(memory, kNan, static_cast<size_t>(bytes));
    region.SetOpen(false);
  }
  // Shared memory that nothing was queued for yet is the host's.
  region.SetOpen(was_open || (kind == cuda::Memory::kShared && arriving_.empty()));
  return memory;
}

// Guarded memory is never given out again: it stays zeros, and late users are noticed.
void EmulatedDevice::Free(cuda::Memory kind, void* memory) {
  if (guarded_ && kind != cuda::Memory::kPinned) return;
  if (kind != cuda::Memory::kPinned) {
    const std::lock_guard lock(mutex_);
    arrays_.Remove(memory);
  }
  std::free(memory);
}

bool EmulatedDevice::Reaches(const void* memory) const {
  if (guarded_) return device_.Holds(memory) || shared_.Holds(memory);
  const std::lock_guard lock(mutex_);
  return arrays_.Holds(memory);
}

void EmulatedDevice::Upload(void* to, const void* from, int64_t bytes) {
  const bool was_open = shared_.open;
  Work([&] { std::memcpy(to, from, static_cast<size_t>(bytes)); });
  shared_.SetOpen(was_open);
}

void EmulatedDevice::Copy(cuda::QueueKind, void* to, const void* from, int64_t bytes) {
  Work([&] {
    if (!guarded_ || Reaches(to)) {
      std::memcpy(to, from, static_cast<size_t>(bytes));
      return;
    }
    const auto* data = static_cast<const char*>(from);
    arriving_.emplace_back(to, std::vector<char>(data, data + bytes));
  });
}

void EmulatedDevice::Clear(cuda::QueueKind, void* to, int64_t bytes) {
  Work([&] { std::memset(to, 0, static_cast<size_t>(bytes)); });
}

std::string EmulatedDevice::Wait(cuda::QueueKind) {
  shared_.SetOpen(true);
  for (const auto& [to, bytes] : arriving_) std::memcpy(to, bytes.data(), bytes.size());
  arriving_.clear();
  return "";
}

}  // namespace polyad::test
