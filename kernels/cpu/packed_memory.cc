#include "kernels/cpu/packed_memory.h"

#include <sys/mman.h>

#include <mutex>

#include "absl/strings/str_format.h"
#include "kernels/cpu/round_up.h"

namespace polyad::cpu {
namespace {

constexpr int64_t kHugePage = int64_t{2} << 20;
// Small enough that what a slab leaves unused is nothing beside a model, large enough that an
// adapter spans few.
constexpr int64_t kSlabBytes = 2 * kHugePage;
constexpr int64_t kMaxBytes = int64_t{1} << 46;

// Maps `bytes` (a multiple of kHugePage) on a huge-page boundary; the slack of the first mapping
// goes back at once.
absl::StatusOr<std::shared_ptr<char>> MapSlab(int64_t bytes) {
  const size_t wanted = static_cast<size_t>(bytes + kHugePage);
  void* mapped = mmap(nullptr, wanted, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        absl::StrFormat("packed weights: the system refused %d bytes", bytes));
  }
  const auto address = reinterpret_cast<uintptr_t>(mapped);
  const uintptr_t aligned = (address + kHugePage - 1) / kHugePage * kHugePage;
  char* slab = static_cast<char*>(mapped) + (aligned - address);
  const size_t tail = wanted - (aligned - address) - static_cast<size_t>(bytes);
  if (aligned != address) munmap(mapped, aligned - address);
  if (tail != 0) munmap(slab + bytes, tail);
  madvise(slab, static_cast<size_t>(bytes), MADV_HUGEPAGE);  // a wish: refusal costs speed only
  return std::shared_ptr<char>(
      slab, [bytes](char* memory) { munmap(memory, static_cast<size_t>(bytes)); });
}

struct CurrentSlab {
  std::mutex mutex;
  std::weak_ptr<char> slab;  // weak: dies with its last packing
  int64_t used = 0;
};

}  // namespace

absl::StatusOr<std::shared_ptr<char>> AllocatePacked(int64_t bytes) {
  static CurrentSlab& current = *new CurrentSlab;
  if (bytes < 0 || bytes > kMaxBytes) {
    return absl::ResourceExhaustedError(absl::StrFormat("packed weights: %d bytes asked", bytes));
  }
  const int64_t rounded = RoundUp(bytes < 1 ? 1 : bytes, 64);
  if (rounded >= kSlabBytes) return MapSlab(RoundUp(rounded, kHugePage));
  std::lock_guard<std::mutex> lock(current.mutex);
  std::shared_ptr<char> slab = current.slab.lock();
  if (slab == nullptr || current.used + rounded > kSlabBytes) {
    absl::StatusOr<std::shared_ptr<char>> fresh = MapSlab(kSlabBytes);
    if (!fresh.ok()) return fresh.status();
    slab = *std::move(fresh);
    current.slab = slab;
    current.used = 0;
  }
  char* start = slab.get() + current.used;
  current.used += rounded;
  return std::shared_ptr<char>(std::move(slab), start);
}

}  // namespace polyad::cpu
