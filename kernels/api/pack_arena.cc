#include "kernels/api/pack_arena.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "absl/strings/str_format.h"
#include "kernels/api/huge_pages.h"

namespace polyad {
namespace {

constexpr int64_t kAlignment = 64;
constexpr int64_t kMaxSlab = 2 * kHugePage;
constexpr int64_t kMaxBytes = int64_t{1} << 46;

thread_local PackArena* current = nullptr;

int64_t RoundTo(int64_t bytes, int64_t unit) { return (bytes + unit - 1) / unit * unit; }

// Pages of the ordinary size, zero as the system gives them.
absl::StatusOr<std::shared_ptr<char>> MapSmall(int64_t bytes) {
  const auto size = static_cast<size_t>(bytes);
  void* mapped = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        absl::StrFormat("adapter memory: the system refused %d bytes", bytes));
  }
  madvise(mapped, size, MADV_NOHUGEPAGE);
  return std::shared_ptr<char>(static_cast<char*>(mapped),
                               [size](char* memory) { munmap(memory, size); });
}

absl::StatusOr<std::shared_ptr<char>> MapLarge(int64_t bytes) {
  absl::StatusOr<HugePages> pages = HugePages::Allocate(bytes);
  if (!pages.ok()) return pages.status();
  if (!pages->is_zero) std::memset(pages->memory.get(), 0, static_cast<size_t>(bytes));
  return std::move(pages->memory);
}

}  // namespace

absl::StatusOr<std::shared_ptr<char>> PackArena::Allocate(int64_t bytes) {
  if (bytes < 0 || bytes > kMaxBytes) {
    return absl::ResourceExhaustedError(absl::StrFormat("adapter memory: %d bytes asked", bytes));
  }
  const int64_t rounded = RoundTo(std::max<int64_t>(bytes, 1), kAlignment);
  if (used_ + rounded > slab_bytes_) {
    if (absl::Status added = AddSlab(rounded); !added.ok()) return added;
  }
  char* start = slab_.get() + used_;
  used_ += rounded;
  return std::shared_ptr<char>(slab_, start);
}

absl::Status PackArena::AddSlab(int64_t at_least) {
  const auto held = static_cast<uint64_t>(std::clamp(bytes_, kPageBytes, kMaxSlab));
  int64_t wanted = std::max(static_cast<int64_t>(std::bit_floor(held)), at_least);
  wanted = RoundTo(wanted, wanted >= kHugePage ? kHugePage : kPageBytes);
  if (absl::Status granted = grant_(wanted); !granted.ok()) return granted;
  absl::StatusOr<std::shared_ptr<char>> slab =
      wanted >= kHugePage ? MapLarge(wanted) : MapSmall(wanted);
  if (!slab.ok()) return slab.status();
  slab_ = *std::move(slab);
  slab_bytes_ = wanted;
  used_ = 0;
  bytes_ += wanted;
  return absl::OkStatus();
}

PackArena* PackArena::Current() { return current; }

PackArena::Scope::Scope(PackArena* arena) : before_(std::exchange(current, arena)) {}
PackArena::Scope::~Scope() { current = before_; }

}  // namespace polyad
