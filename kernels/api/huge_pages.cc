#include "kernels/api/huge_pages.h"

#include <sys/mman.h>

#include <deque>
#include <mutex>
#include <utility>

#include "absl/strings/str_format.h"

#if defined(POLYAD_ASAN)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size) static_cast<void>(0)
#define ASAN_UNPOISON_MEMORY_REGION(address, size) static_cast<void>(0)
#endif

namespace polyad {
namespace {

constexpr int64_t kMaxBytes = int64_t{1} << 46;

struct Mapping {
  char* memory;
  int64_t bytes;
};

void Unmap(const Mapping& mapping) {
  ASAN_UNPOISON_MEMORY_REGION(mapping.memory, static_cast<size_t>(mapping.bytes));
  munmap(mapping.memory, static_cast<size_t>(mapping.bytes));
}

// Maps `bytes` on a huge-page boundary; the slack of the first mapping goes back at once.
absl::StatusOr<Mapping> Map(int64_t bytes) {
  const size_t wanted = static_cast<size_t>(bytes + kHugePage);
  void* mapped = mmap(nullptr, wanted, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        absl::StrFormat("huge pages: the system refused %d bytes", bytes));
  }
  const auto address = reinterpret_cast<uintptr_t>(mapped);
  const uintptr_t aligned = (address + kHugePage - 1) / kHugePage * kHugePage;
  char* memory = static_cast<char*>(mapped) + (aligned - address);
  const size_t tail = wanted - (aligned - address) - static_cast<size_t>(bytes);
  if (aligned != address) munmap(mapped, aligned - address);
  if (tail != 0) munmap(memory + bytes, tail);
  madvise(memory, static_cast<size_t>(bytes), MADV_HUGEPAGE);  // a wish: refusal costs speed only
  return Mapping{memory, bytes};
}

// What was given back, oldest first.
class KeptMappings {
 public:
  void Add(const Mapping& mapping) {
    std::unique_lock<std::mutex> lock(mutex_);
    if (mapping.bytes > HugePages::kMaxKept) {
      lock.unlock();
      return Unmap(mapping);
    }
    ASAN_POISON_MEMORY_REGION(mapping.memory, static_cast<size_t>(mapping.bytes));
    kept_.push_back(mapping);
    bytes_ += mapping.bytes;
    ReleaseTo(HugePages::kMaxKept, lock);
  }

  bool Take(int64_t bytes, Mapping& found) {
    std::lock_guard<std::mutex> lock(mutex_);
    for (auto kept = kept_.rbegin(); kept != kept_.rend(); ++kept) {
      if (kept->bytes != bytes) continue;
      found = *kept;
      kept_.erase(std::next(kept).base());
      bytes_ -= bytes;
      ASAN_UNPOISON_MEMORY_REGION(found.memory, static_cast<size_t>(bytes));
      return true;
    }
    return false;
  }

  void Release() {
    std::unique_lock<std::mutex> lock(mutex_);
    ReleaseTo(0, lock);
  }

  int64_t bytes() {
    std::lock_guard<std::mutex> lock(mutex_);
    return bytes_;
  }

 private:
  // Unmaps outside the lock: the system takes a while to free pages.
  void ReleaseTo(int64_t most, std::unique_lock<std::mutex>& lock) {
    std::deque<Mapping> released;
    while (bytes_ > most) {
      released.push_back(kept_.front());
      bytes_ -= kept_.front().bytes;
      kept_.pop_front();
    }
    lock.unlock();
    for (const Mapping& mapping : released) Unmap(mapping);
  }

  std::mutex mutex_;
  std::deque<Mapping> kept_;
  int64_t bytes_ = 0;
};

KeptMappings& Kept() {
  static KeptMappings& kept = *new KeptMappings;  // outlives every static that holds memory
  return kept;
}

}  // namespace

absl::StatusOr<HugePages> HugePages::Allocate(int64_t bytes) {
  if (bytes < 0 || bytes > kMaxBytes) {
    return absl::ResourceExhaustedError(absl::StrFormat("huge pages: %d bytes asked", bytes));
  }
  const int64_t whole = bytes < 1 ? kHugePage : (bytes + kHugePage - 1) / kHugePage * kHugePage;
  Mapping mapping{};
  const bool used_before = Kept().Take(whole, mapping);
  if (!used_before) {
    const absl::StatusOr<Mapping> fresh = Map(whole);
    if (!fresh.ok()) return fresh.status();
    mapping = *fresh;
  }
  HugePages pages;
  pages.is_zero = !used_before;
  pages.memory = std::shared_ptr<char>(mapping.memory, [mapping](char*) { Kept().Add(mapping); });
  return pages;
}

void HugePages::ReleaseKept() { Kept().Release(); }

int64_t HugePages::kept_bytes() { return Kept().bytes(); }

}  // namespace polyad
