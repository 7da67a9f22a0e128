#pragma once

// K/V pages of the CPU backend, laid out by kv_layout.h; shapes are settled (kv_shape.h). Pages lie
// [layer][block][kv head], or [block][layer][kv head] where blocks come and go with their memory.
// Within a step its tokens are written before any is read; tasks write different tokens.

#include <memory>
#include <span>

#include "absl/status/statusor.h"
#include "kernels/api/backend.h"
#include "kernels/cpu/kv_layout.h"

namespace polyad::cpu {

static_assert(kBlock == kBlockTokens);

class CpuKvStorage final : public KvStorage {
 public:
  // RESOURCE_EXHAUSTED when the pages exceed the machine's memory or the system refuses them. Pages
  // are zero and take physical memory as they are first written.
  static absl::StatusOr<std::unique_ptr<CpuKvStorage>> Create(const KvShape& shape,
                                                              int64_t num_blocks);
  static absl::StatusOr<int64_t> BlockBytes(const KvShape& shape);  // as KvBlockBytes

  int64_t num_blocks() const override { return num_blocks_; }
  int64_t bytes() const override { return bytes_; }
  KvFormat format() const override { return shape_.format; }
  int64_t block_bytes() const override { return shape_.num_layers * layer_bytes(); }
  int64_t block_stride() const override { return bytes_ / num_blocks_; }
  void Discard(int64_t begin, int64_t end) override;
  void Save(int64_t block, std::span<char> to) const override;
  void Restore(int64_t block, std::span<const char> from) override;
  const KvShape& shape() const { return shape_; }
  const KvLayout& layout() const { return layout_; }

  // Page of block 0; block b lies b * block_stride_bytes() further.
  char* Page(int64_t layer, int64_t kv_head) const {
    return memory_.get() + layer * layer_stride_bytes() + kv_head * page_bytes();
  }
  int64_t page_bytes() const { return layout_.page_bytes(); }
  int64_t block_stride_bytes() const { return by_block() ? block_stride() : layer_bytes(); }

 private:
  bool by_block() const { return shape_.placement == KvPlacement::kByBlock; }
  int64_t layer_bytes() const { return shape_.num_kv_heads * page_bytes(); }  // of one block
  int64_t layer_stride_bytes() const {
    return by_block() ? layer_bytes() : num_blocks_ * layer_bytes();
  }

  CpuKvStorage(const KvShape& shape, int64_t num_blocks)
      : shape_(shape),
        num_blocks_(num_blocks),
        layout_(KvLayout::Of(shape.format, shape.head_dim)) {}

  const KvShape shape_;
  const int64_t num_blocks_;
  const KvLayout layout_;
  int64_t bytes_ = 0;
  std::shared_ptr<char> memory_;
};

}  // namespace polyad::cpu
