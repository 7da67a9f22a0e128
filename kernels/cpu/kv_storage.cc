#include "kernels/cpu/kv_storage.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

#include "absl/strings/str_format.h"
#include "kernels/api/check.h"
#include "kernels/cpu/packed_memory.h"

namespace polyad::cpu {
namespace {

constexpr int64_t kMaxSize = int64_t{1} << 20;

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

}  // namespace

absl::StatusOr<std::unique_ptr<CpuKvStorage>> CpuKvStorage::Create(const KvShape& shape,
                                                                   int64_t num_blocks, bool bf16) {
  for (int64_t size : {shape.num_layers, shape.num_kv_heads, shape.head_dim}) {
    if (size >= 1 && size <= kMaxSize && num_blocks >= 1) continue;
    return absl::InvalidArgumentError(absl::StrFormat(
        "K/V pages: expected sizes from 1 to %d, got %d layers, %d kv heads of %d, %d blocks",
        kMaxSize, shape.num_layers, shape.num_kv_heads, shape.head_dim, num_blocks));
  }
  const KvLayout layout{bf16, (shape.head_dim + 15) / 16 * 16};
  std::unique_ptr<CpuKvStorage> storage(new CpuKvStorage(shape, num_blocks, layout));
  const int64_t physical = static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE);
  const int64_t layer_block_bytes = storage->block_stride_bytes();
  // Sizes of a model come from a file: divide rather than multiply past the end of int64.
  if (layer_block_bytes > physical / shape.num_layers / num_blocks) {
    return absl::ResourceExhaustedError(
        absl::StrFormat("K/V pages: %d blocks of %d layers exceed this machine's %d bytes",
                        num_blocks, shape.num_layers, physical));
  }
  storage->bytes_ = layer_block_bytes * num_blocks * shape.num_layers;
  absl::StatusOr<std::shared_ptr<char>> memory = AllocatePacked(storage->bytes_);
  if (!memory.ok()) return memory.status();
  storage->memory_ = *std::move(memory);
  Prefault(storage->memory_.get(), storage->bytes_);
  return storage;
}

// The pages of a layer's kv heads lie together, so a block is one piece of each layer.
void CpuKvStorage::Save(int64_t block, std::span<char> to) const {
  KERNEL_CHECK(static_cast<int64_t>(to.size()) == block_bytes(), "a block is saved whole");
  const int64_t stride = block_stride_bytes();
  for (int64_t layer = 0; layer < shape_.num_layers; ++layer) {
    std::memcpy(to.data() + layer * stride, Page(layer, 0) + block * stride,
                static_cast<size_t>(stride));
  }
}

void CpuKvStorage::Restore(int64_t block, std::span<const char> from) {
  KERNEL_CHECK(static_cast<int64_t>(from.size()) == block_bytes(), "a block is restored whole");
  const int64_t stride = block_stride_bytes();
  for (int64_t layer = 0; layer < shape_.num_layers; ++layer) {
    std::memcpy(Page(layer, 0) + block * stride, from.data() + layer * stride,
                static_cast<size_t>(stride));
  }
}

}  // namespace polyad::cpu
