#pragma once

// K/V pages as the CUDA kernels lay them out, held in host memory for the emulator, and the ops on
// them. Pages begin as NaNs, so that numbers which nobody stored show. Formats that have no kernels
// (int8, int4) are the reference's own storage.

#include <memory>
#include <span>
#include <vector>

#include "kernels/api/backend.h"
#include "kernels/cuda/kv_pages.cuh"
#include "kernels/simt/simt.h"

namespace polyad::test {

class EmulatedKv final : public KvStorage {
 public:
  // `shape` has its format settled; `reference` has the same.
  EmulatedKv(const KvShape& shape, std::unique_ptr<KvStorage> reference);

  int64_t num_blocks() const override { return reference_->num_blocks(); }
  int64_t bytes() const override { return reference_->bytes(); }
  KvFormat format() const override { return reference_->format(); }
  int64_t block_bytes() const override { return reference_->block_bytes(); }
  void Save(int64_t block, std::span<char> to) const override { reference_->Save(block, to); }
  void Restore(int64_t block, std::span<const char> from) override {
    reference_->Restore(block, from);
  }

  const KvShape& shape() const { return shape_; }
  bool has_kernels() const { return !IsCoded(shape_.format) && shape_.head_dim <= 256; }
  KvStorage& reference() const { return *reference_; }
  // Pages of one layer; T as the format has it.
  template <typename T>
  cuda::KvPages<T> Pages(int64_t layer) const;
  // A stored row of a key or a value.
  std::vector<float> RowOf(int64_t layer, int64_t slot, int64_t kv_head, int part) const;

 private:
  int64_t stride() const { return (shape_.head_dim + 15) / 16 * 16; }
  int64_t LayerElements() const {
    return num_blocks() * shape_.num_kv_heads * 2 * kBlockTokens * stride();
  }

  const KvShape shape_;
  const std::unique_ptr<KvStorage> reference_;
  mutable std::vector<simt::Words4> words_;  // aligned as device memory is
};

void RotateAndStoreEmulated(const QkvArgs& args, simt::Stream stream);
void AttendEmulated(const AttentionArgs& args, simt::Stream stream);
void AddGatedPrefixEmulated(const GatedPrefixArgs& args, simt::Stream stream);

}  // namespace polyad::test
