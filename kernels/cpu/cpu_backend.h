#pragma once

// The Backend of x86-64 machines: packed products (gemm.h), deltas (delta.h), paged attention
// (attention.h) and row kernels (row_kernels.h) of one instruction set, over one fork-join pool.
// Row ops are divided by rows, so that no result depends on the number of threads. Threads: as
// kernels/api/backend.h says.

#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "kernels/api/backend.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/cpu_features.h"
#include "kernels/cpu/row_kernels.h"
#include "kernels/cpu/thread_pool.h"

namespace polyad::cpu {

class CpuBackend final : public Backend {
 public:
  // INVALID_ARGUMENT or FAILED_PRECONDITION for an instruction set that is unknown or missing.
  static absl::StatusOr<std::unique_ptr<CpuBackend>> Create(const BackendOptions& options);

  BackendInfo info() const override;
  DType activation_dtype() const override;

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
  CpuBackend(const BackendOptions& options, Isa isa);

  // Calls fn(row) for each row, in tasks worth taking: `row_cost` is about the values a row
  // touches.
  void ForRows(int64_t num_rows, int64_t row_cost, absl::FunctionRef<void(int64_t)> fn);
  void RotateAndStoreRow(const QkvArgs& args, int64_t row) const;

  const ComputeMode mode_;
  const Isa isa_;
  const RowKernels kernels_;
  ThreadPool pool_;
  AttentionRunner attention_;
};

}  // namespace polyad::cpu
