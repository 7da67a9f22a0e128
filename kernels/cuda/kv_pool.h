#pragma once

// K/V pages of all layers in device memory (kv_pages.cuh, kv_codes.cuh), and the ops on them.

#include <memory>
#include <span>
#include <type_traits>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/api/backend.h"
#include "kernels/cuda/device_memory.h"
#include "kernels/cuda/kv_codes.cuh"
#include "kernels/cuda/kv_pages.cuh"

namespace polyad::cuda {

class CudaKv final : public KvStorage {
 public:
  // `shape` has its format settled. UNIMPLEMENTED: head dims above 256.
  // RESOURCE_EXHAUSTED where the device refuses memory.
  static absl::StatusOr<std::unique_ptr<CudaKv>> Create(const KvShape& shape, int64_t num_blocks,
                                                        CallQueue& queue);
  static absl::StatusOr<int64_t> BlockBytes(const KvShape& shape);
  ~CudaKv() override;

  int64_t num_blocks() const override { return num_blocks_; }
  int64_t bytes() const override { return num_blocks_ * block_bytes(); }
  KvFormat format() const override { return shape_.format; }
  int64_t block_bytes() const override { return shape_.num_layers * LayerBytes(shape_); }
  void Save(int64_t block, std::span<char> to) const override;
  void Restore(int64_t block, std::span<const char> from) override;

  const KvShape& shape() const { return shape_; }
  // Pages of one layer; T as the format has it.
  template <typename T>
  KvPages<T> Pages(int64_t layer) const {
    using Element = std::remove_pointer_t<decltype(KvPages<T>::data)>;
    return {reinterpret_cast<Element*>(memory_ + layer * num_blocks_ * LayerBytes(shape_)),
            static_cast<int32_t>(shape_.num_kv_heads), static_cast<int32_t>(shape_.head_dim),
            static_cast<int32_t>(Stride(shape_))};
  }

 private:
  std::vector<StagedPiece> PiecesOf(int64_t block) const;  // by layer
  CudaKv(const KvShape& shape, int64_t num_blocks, CallQueue& queue, char* memory)
      : shape_(shape), num_blocks_(num_blocks), queue_(queue), memory_(memory) {}
  static int64_t Stride(const KvShape& shape) {
    return RoundUp(shape.head_dim, shape.format == KvFormat::kInt4 ? 32 : 16);
  }
  static int64_t LayerBytes(const KvShape& shape) {  // of a block
    if (IsCoded(shape.format)) {
      return shape.num_kv_heads * CodedHeadBytes(shape.format, static_cast<int>(Stride(shape)));
    }
    const int64_t element = shape.format == KvFormat::kF32 ? 4 : 2;
    return shape.num_kv_heads * 2 * kBlockTokens * Stride(shape) * element;
  }

  const KvShape shape_;
  const int64_t num_blocks_;
  CallQueue& queue_;
  char* const memory_;
};

// As the calls of Backend. Norm weights on the device.
void RotateAndStoreOnDevice(const QkvArgs& args, const float* q_norm, const float* k_norm,
                            CallQueue& queue);
void AttendOnDevice(const AttentionArgs& args, CallQueue& queue);
void AddGatedPrefixOnDevice(const GatedPrefixArgs& args, const float* gate, CallQueue& queue);

}  // namespace polyad::cuda
