#include "kernels/cpu/kv_storage.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <limits>
#include <numeric>

#include "absl/strings/str_format.h"
#include "kernels/api/check.h"
#include "kernels/api/huge_pages.h"
#include "kernels/cpu/packed_memory.h"

namespace polyad::cpu {
namespace {

// A tile of keys is 16 lines, of which the last group of a head may have fewer.
constexpr int64_t kReadBeyond = 16 * kLineBytes;

// Has the system clear the pages now rather than under the first requests, whose first token it
// would delay by some 0.6 s. Kernels before 5.14 refuse: then the first touch pays, as it would
// have.
void Prefault(char* memory, int64_t bytes) {
#ifdef MADV_POPULATE_WRITE
  madvise(memory, static_cast<size_t>(bytes), MADV_POPULATE_WRITE);
#else
  static_cast<void>(memory);
  static_cast<void>(bytes);
#endif
}

// Addresses this far apart meet in the same sets of a second-level cache (16 ways of 128 KiB): one
// head's pages of a sequence must not all do so, as they would where a block is a power of two.
constexpr int64_t kWayBytes = int64_t{128} << 10;
constexpr int64_t kLeastSpread = int64_t{16} << 10;

int64_t SpreadStride(int64_t block_bytes) {
  int64_t stride = block_bytes;
  while (stride >= kWayBytes && std::gcd(stride, kWayBytes) > kLeastSpread) stride += 4096;
  return stride;
}

absl::StatusOr<std::shared_ptr<char>> Reserve(int64_t bytes) {
  absl::StatusOr<HugePages> pages = HugePages::Allocate(bytes);
  if (!pages.ok()) return pages.status();
  if (!pages->is_zero) {
    madvise(pages->memory.get(), static_cast<size_t>(bytes), MADV_DONTNEED);  // to be zero again
  }
  return std::move(pages->memory);
}

}  // namespace

absl::StatusOr<int64_t> CpuKvStorage::BlockBytes(const KvShape& shape) {
  // Sizes of a model come from a file: divide rather than multiply past the end of int64.
  const int64_t page_bytes = KvLayout::Of(shape.format, shape.head_dim).page_bytes();
  if (page_bytes > std::numeric_limits<int64_t>::max() / shape.num_kv_heads / shape.num_layers) {
    return absl::InvalidArgumentError(
        absl::StrFormat("K/V pages: %d layers of %d kv heads of %d are beyond any memory",
                        shape.num_layers, shape.num_kv_heads, shape.head_dim));
  }
  const int64_t bytes = page_bytes * shape.num_kv_heads * shape.num_layers;
  return shape.placement == KvPlacement::kByBlock ? SpreadStride(bytes) : bytes;
}

absl::StatusOr<std::unique_ptr<CpuKvStorage>> CpuKvStorage::Create(const KvShape& shape,
                                                                   int64_t num_blocks) {
  const absl::StatusOr<int64_t> block_bytes = BlockBytes(shape);
  if (!block_bytes.ok()) return block_bytes.status();
  if (num_blocks < 1) {
    return absl::InvalidArgumentError(
        absl::StrFormat("K/V pages: expected at least one block, got %d", num_blocks));
  }
  const int64_t physical = static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE);
  if (*block_bytes > physical / num_blocks) {
    return absl::ResourceExhaustedError(
        absl::StrFormat("K/V pages: %d blocks of %d layers exceed this machine's %d bytes",
                        num_blocks, shape.num_layers, physical));
  }
  std::unique_ptr<CpuKvStorage> storage(new CpuKvStorage(shape, num_blocks));
  storage->bytes_ = *block_bytes * num_blocks;
  absl::StatusOr<std::shared_ptr<char>> memory =
      storage->by_block() ? Reserve(storage->bytes_ + kReadBeyond)
                          : AllocatePacked(storage->bytes_ + kReadBeyond);
  if (!memory.ok()) return memory.status();
  storage->memory_ = *std::move(memory);
  if (!storage->by_block()) Prefault(storage->memory_.get(), storage->bytes_);
  return storage;
}

void CpuKvStorage::Discard(int64_t begin, int64_t end) {
  KERNEL_CHECK(by_block() && begin % kHugePage == 0 && end % kHugePage == 0, "whole huge pages");
  KERNEL_CHECK(begin >= 0 && begin <= end && end < bytes_ + kHugePage, "pages of the storage");
  madvise(memory_.get() + begin, static_cast<size_t>(end - begin), MADV_DONTNEED);
}

// The pages of a layer's kv heads lie together, so a block is one piece of each layer at least.
void CpuKvStorage::Save(int64_t block, std::span<char> to) const {
  KERNEL_CHECK(static_cast<int64_t>(to.size()) == block_bytes(), "a block is saved whole");
  const int64_t stride = block_stride_bytes();
  for (int64_t layer = 0; layer < shape_.num_layers; ++layer) {
    std::memcpy(to.data() + layer * layer_bytes(), Page(layer, 0) + block * stride,
                static_cast<size_t>(layer_bytes()));
  }
}

void CpuKvStorage::Restore(int64_t block, std::span<const char> from) {
  KERNEL_CHECK(static_cast<int64_t>(from.size()) == block_bytes(), "a block is restored whole");
  const int64_t stride = block_stride_bytes();
  for (int64_t layer = 0; layer < shape_.num_layers; ++layer) {
    std::memcpy(Page(layer, 0) + block * stride, from.data() + layer * layer_bytes(),
                static_cast<size_t>(layer_bytes()));
  }
}

}  // namespace polyad::cpu
