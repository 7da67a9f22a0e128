#pragma once

// Memory in whole huge pages (2 MiB), for what is large and streamed: packed weights, K/V, files of
// adapters. What is given back is kept, up to kMaxKept bytes in all, and given out again: adapters
// come and go while requests run, and the system clears a fresh page at less than 2 GB/s on a
// virtual machine, which was a third of the time that loading an adapter took. Memory that is
// kept is poisoned under AddressSanitizer. Thread-safe. RESOURCE_EXHAUSTED where the system
// refuses.

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"

namespace polyad {

inline constexpr int64_t kHugePage = int64_t{2} << 20;

struct HugePages {
  static constexpr int64_t kMaxKept = int64_t{64} << 20;

  std::shared_ptr<char> memory;  // on a huge page's boundary
  bool is_zero = false;          // as the system gives it; else of any content

  // At least `bytes`, in whole pages. Kept memory fits only where it has exactly as many.
  static absl::StatusOr<HugePages> Allocate(int64_t bytes);
  // Gives all that is kept back to the system; after a model has loaded, say.
  static void ReleaseKept();
  static int64_t kept_bytes();
};

}  // namespace polyad
