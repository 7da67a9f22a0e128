#pragma once

// A Backend whose ops run as CUDA kernels under the emulator (K/V pages of codes, which have no
// kernels yet, go to the reference): it lets the shared op cases test kernels before there is a
// device. It does on the host what a CUDA backend does with device memory: activations in padded
// rows, packed factors, plans. num_launches() tells whether kernels ran at all. One thread.

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/api/backend.h"
#include "kernels/cuda/site_rows.cuh"
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
      std::span<const TensorView> parts) override;
  absl::StatusOr<std::unique_ptr<PackedDelta>> PackDelta(const DeltaOp& op,
                                                         PackShare& share) override;
  absl::StatusOr<int64_t> KvBlockBytes(const KvShape& shape) const override {
    return reference_->KvBlockBytes(shape);
  }
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
  void Copy(FloatRows from, FloatRows to) override;
  void Copy(ActivationRows from, ActivationRows to) override;
  void Convert(FloatRows from, ActivationRows to) override;
  void Zero(FloatRows rows) override;
  void Accumulate(FloatRows x, FloatRows y) override;

 private:
  template <typename From, typename To>
  void MoveAll(cuda::Move move, cuda::DeviceRows<const From> from, cuda::DeviceRows<To> to);
  bool exact() const { return activation_dtype() == DType::kF32; }

  const std::unique_ptr<Backend> reference_;
  simt::EmulatedStream stream_;
};

}  // namespace polyad::test
