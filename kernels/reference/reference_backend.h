#pragma once

// The oracle: every op of the Backend contract written as its formula, in double precision, one
// thread, one small file per op. It is the truth the other backends are measured against, and slow.
// Numbers are rounded only where the contract stores them: fp32 rows, activations (f32, or bf16 in
// auto mode) and K/V.

#include <memory>
#include <span>
#include <vector>

#include "kernels/api/backend.h"

namespace polyad::ref {

// Stored rows, copied as they are; parts share cols and dtype. Grouped rows, and what is stacked
// with them, are held as the fp32 numbers they stand for.
class StoredMatrix final : public PackedMatrix {
 public:
  explicit StoredMatrix(std::span<const TensorView> parts);
  int64_t out() const override { return view_.rows; }
  int64_t in() const override { return view_.cols; }
  PrecisionBytes bytes() const override {
    return StoredBytes(view_.dtype, static_cast<int64_t>(bytes_.size()));
  }
  const TensorView& view() const { return view_; }
  std::vector<double> Row(int64_t row) const;

 private:
  void Dequantize(std::span<const TensorView> parts);

  std::vector<unsigned char> bytes_;
  TensorView view_;
};

// K and V as they are read, whatever their format (kv_codes.h); those of one token and layer lie
// together: [layer][slot][kv_head * head_dim].
class StoredKv final : public KvStorage {
 public:
  StoredKv(const KvShape& shape, int64_t num_blocks);
  int64_t num_blocks() const override { return num_blocks_; }
  int64_t bytes() const override {
    return static_cast<int64_t>((k_.size() + v_.size()) * sizeof(float));
  }
  KvFormat format() const override { return shape_.format; }
  int64_t block_bytes() const override { return bytes() / num_blocks_; }
  void Save(int64_t block, std::span<char> to) const override;
  void Restore(int64_t block, std::span<const char> from) override;
  // Of storage placed by block: makes not-a-numbers of the blocks that lie there.
  void Discard(int64_t begin, int64_t end) override;
  const KvShape& shape() const { return shape_; }
  float* K(int64_t layer, int64_t slot, int64_t kv_head) {
    return &k_[Index(layer, slot, kv_head)];
  }
  float* V(int64_t layer, int64_t slot, int64_t kv_head) {
    return &v_[Index(layer, slot, kv_head)];
  }
  const float* K(int64_t layer, int64_t slot, int64_t kv_head) const {
    return &k_[Index(layer, slot, kv_head)];
  }
  const float* V(int64_t layer, int64_t slot, int64_t kv_head) const {
    return &v_[Index(layer, slot, kv_head)];
  }

 private:
  size_t Index(int64_t layer, int64_t slot, int64_t kv_head) const;

  const KvShape shape_;
  const int64_t num_blocks_;
  std::vector<float> k_;
  std::vector<float> v_;
};

class ReferenceBackend final : public Backend {
 public:
  explicit ReferenceBackend(ComputeMode mode) : mode_(mode) {}

  BackendInfo info() const override { return {"reference", "double", 1}; }
  DType activation_dtype() const override {
    return mode_ == ComputeMode::kF32 ? DType::kF32 : DType::kBF16;
  }

  absl::StatusOr<std::shared_ptr<void>> Allocate(int64_t bytes) override;
  absl::StatusOr<std::unique_ptr<PackedMatrix>> PackMatrix(
      std::span<const TensorView> parts) override;
  absl::StatusOr<std::unique_ptr<PackedDelta>> PackDelta(const DeltaOp& op,
                                                         PackShare& share) override;
  absl::StatusOr<int64_t> KvBlockBytes(const KvShape& shape) const override;
  absl::StatusOr<std::unique_ptr<KvStorage>> AllocateKv(const KvShape& shape,
                                                        int64_t num_blocks) override;

  void ProductOfRows(const PackedMatrix& weight, int64_t first_row, FloatRows x,
                     FloatRows y) override;
  void Embed(const PackedMatrix& table, std::span<const int32_t> ids, FloatRows out) override;
  void AddRows(const PackedMatrix& table, std::span<const int32_t> ids, FloatRows out) override;
  void Norm(const NormArgs& args, FloatRows x, ActivationRows y) override;
  void Gemm(const GemmArgs& args, ActivationRows x, FloatRows y) override;
  void RotateAndStore(const QkvArgs& args) override;
  void Attention(const AttentionArgs& args) override;
  void AddGatedPrefix(const GatedPrefixArgs& args) override;
  void Activate(ActivationKind kind, bool gated, FloatRows x, ActivationRows y) override;
  void GatherRows(FloatRows x, std::span<const int32_t> rows, FloatRows out) override;
  void ArgMax(FloatRows logits, std::span<TokenScore> best) override;
  void Apply(std::span<const DeltaSegment> segments, ActivationRows x, FloatRows y) override;
  void TransformInput(std::span<const DeltaSegment> segments, ActivationRows x) override;
  void TransformOutput(std::span<const DeltaSegment> segments, FloatRows y) override;
  void TransformEmbedding(std::span<const DeltaSegment> segments, std::span<const int32_t> ids,
                          FloatRows rows) override;
  void Copy(FloatRows from, FloatRows to) override;
  void Copy(ActivationRows from, ActivationRows to) override;
  void Convert(FloatRows from, ActivationRows to) override;
  void Zero(FloatRows rows) override;
  void Accumulate(FloatRows x, FloatRows y) override;

 private:
  const ComputeMode mode_;
};

}  // namespace polyad::ref
