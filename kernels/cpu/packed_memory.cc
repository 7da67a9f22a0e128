#include "kernels/cpu/packed_memory.h"

#include <cstring>
#include <mutex>

#include "absl/strings/str_format.h"
#include "kernels/api/huge_pages.h"
#include "kernels/api/pack_arena.h"
#include "kernels/api/round_up.h"

namespace polyad::cpu {
namespace {

// Small enough that what a slab leaves unused is nothing beside a model, large enough that an
// adapter spans few.
constexpr int64_t kSlabBytes = 2 * kHugePage;
constexpr int64_t kMaxBytes = int64_t{1} << 46;

struct CurrentSlab {
  std::mutex mutex;
  std::weak_ptr<char> slab;  // weak: dies with its last packing
  bool is_zero = false;
  int64_t used = 0;
};

void ClearUnless(bool is_zero, char* memory, int64_t bytes) {
  if (!is_zero) std::memset(memory, 0, static_cast<size_t>(bytes));
}

}  // namespace

absl::StatusOr<std::shared_ptr<char>> AllocatePacked(int64_t bytes) {
  if (PackArena* arena = PackArena::Current(); arena != nullptr) return arena->Allocate(bytes);
  static CurrentSlab& current = *new CurrentSlab;
  if (bytes < 0 || bytes > kMaxBytes) {
    return absl::ResourceExhaustedError(absl::StrFormat("packed weights: %d bytes asked", bytes));
  }
  const int64_t rounded = RoundUp(bytes < 1 ? 1 : bytes, 64);
  if (rounded >= kSlabBytes) {
    absl::StatusOr<HugePages> pages = HugePages::Allocate(rounded);
    if (!pages.ok()) return pages.status();
    ClearUnless(pages->is_zero, pages->memory.get(), rounded);
    return std::move(pages->memory);
  }
  std::unique_lock<std::mutex> lock(current.mutex);
  std::shared_ptr<char> slab = current.slab.lock();
  if (slab == nullptr || current.used + rounded > kSlabBytes) {
    absl::StatusOr<HugePages> fresh = HugePages::Allocate(kSlabBytes);
    if (!fresh.ok()) return fresh.status();
    slab = std::move(fresh->memory);
    current.slab = slab;
    current.is_zero = fresh->is_zero;
    current.used = 0;
  }
  char* start = slab.get() + current.used;
  current.used += rounded;
  const bool is_zero = current.is_zero;
  lock.unlock();
  ClearUnless(is_zero, start, rounded);
  return std::shared_ptr<char>(std::move(slab), start);
}

}  // namespace polyad::cpu
