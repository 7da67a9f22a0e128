#pragma once

// A Backend whose ops run as CUDA kernels under the emulator, as far as kernels/cuda has them, and
// as the reference otherwise: it lets the shared op cases test kernels before there is a device. It
// does on the host what a CUDA backend does with device memory: activations in padded rows, packed
// factors, plans. num_launches() tells whether kernels ran at all. One thread.

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/api/backend.h"
#include "kernels/simt/emulated_stream.h"
#include "tests/kernels/cuda/emulated_attention.h"

namespace polyad::test {

class EmulatedBackend final : public Backend {
 public:
  EmulatedBackend(ComputeMode mode, const simt::EmulatorOptions& options);

  const std::string& fault() const { return stream_.fault(); }
  int64_t num_launches() const { return stream_.num_launches(); }

  BackendInfo info() const override { return {"emulated", "simt", 1}; }
  DType activation_dtype() const override { return reference_->activation_dtype(); }
  absl::StatusOr<std::shared_ptr<void>> Allocate(int64_t bytes) override {
    return reference_->Allocate(bytes);
  }
  absl::StatusOr<std::unique_ptr<PackedMatrix>> PackMatrix(
      std::span<const TensorView> parts) override {
    return reference_->PackMatrix(parts);
  }
  absl::StatusOr<std::unique_ptr<PackedDelta>> PackDelta(const DeltaOp& op,
                                                         PackShare& share) override;
  absl::StatusOr<int64_t> KvBlockBytes(const KvShape& shape) const override {
    return reference_->KvBlockBytes(shape);
  }
  absl::StatusOr<std::unique_ptr<KvStorage>> AllocateKv(const KvShape& shape,
                                                        int64_t num_blocks) override;
  void ProductOfRows(const PackedMatrix& weight, int64_t first_row, FloatRows x,
                     FloatRows y) override {
    reference_->ProductOfRows(weight, first_row, x, y);
  }
  void Embed(const PackedMatrix& table, std::span<const int32_t> ids, FloatRows out) override {
    reference_->Embed(table, ids, out);
  }
  void AddRows(const PackedMatrix& table, std::span<const int32_t> ids, FloatRows out) override {
    reference_->AddRows(table, ids, out);
  }
  void Norm(const NormArgs& args, FloatRows x, ActivationRows y) override;
  void Gemm(const GemmArgs& args, ActivationRows x, FloatRows y) override {
    reference_->Gemm(args, x, y);
  }
  void RotateAndStore(const QkvArgs& args) override;
  void Attention(const AttentionArgs& args) override;
  void AddGatedPrefix(const GatedPrefixArgs& args) override {
    AddGatedPrefixEmulated(args, &stream_);
  }
  void Activate(ActivationKind kind, bool gated, FloatRows x, ActivationRows y) override;
  void GatherRows(FloatRows x, std::span<const int32_t> rows, FloatRows out) override;
  void ArgMax(FloatRows logits, std::span<TokenScore> best) override;
  void Apply(std::span<const DeltaSegment> segments, ActivationRows x, FloatRows y) override;
  void TransformInput(std::span<const DeltaSegment> segments, ActivationRows x) override;
  void TransformOutput(std::span<const DeltaSegment> segments, FloatRows y) override;
  void TransformEmbedding(std::span<const DeltaSegment> segments, std::span<const int32_t> ids,
                          FloatRows rows) override;
  void Copy(FloatRows from, FloatRows to) override { reference_->Copy(from, to); }
  void Copy(ActivationRows from, ActivationRows to) override { reference_->Copy(from, to); }
  void Convert(FloatRows from, ActivationRows to) override { reference_->Convert(from, to); }
  void Zero(FloatRows rows) override { reference_->Zero(rows); }
  void Accumulate(FloatRows x, FloatRows y) override { reference_->Accumulate(x, y); }

 private:
  bool exact() const { return activation_dtype() == DType::kF32; }

  const std::unique_ptr<Backend> reference_;
  simt::EmulatedStream stream_;
};

}  // namespace polyad::test
