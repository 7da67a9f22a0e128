#pragma once

// Memory for packed weights and deltas: slabs of huge pages (huge_pages.h), so that streaming
// hundreds of megabytes per step does not walk page tables. Small packings share a slab and keep it
// alive together; a slab is given back when the last of them dies. Where an adapter has an arena of
// its own (pack_arena.h), its memory comes from there. Thread-safe. Contents start as zeros.

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"

namespace polyad::cpu {

// `bytes` of zeroed memory aligned to 64 bytes; RESOURCE_EXHAUSTED when the system refuses.
absl::StatusOr<std::shared_ptr<char>> AllocatePacked(int64_t bytes);

}  // namespace polyad::cpu
