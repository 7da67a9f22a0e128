#pragma once

// A Backend for tests whose rows are in the host's own memory, over one that takes rows of its own
// memory alone: each call's rows are copied there before it and back after it. Or, for benchmarks,
// copied there once, when a call first brings them, and never back. Borrows the other.

#include <map>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "kernels/api/backend.h"

namespace polyad::test {

class StagedBackend final : public Backend {
 public:
  enum class Rows : uint8_t { kCopied, kResident };
  explicit StagedBackend(Backend& on_device, Rows rows = Rows::kCopied)
      : on_device_(on_device), rows_(rows) {}

  BackendInfo info() const override { return on_device_.info(); }
  DType activation_dtype() const override { return on_device_.activation_dtype(); }
  absl::StatusOr<std::shared_ptr<void>> Allocate(int64_t bytes) override {
    return on_device_.Allocate(bytes);
  }
  absl::StatusOr<std::unique_ptr<PackedMatrix>> PackMatrix(
      std::span<const TensorView> parts) override {
    return on_device_.PackMatrix(parts);
  }
  absl::StatusOr<std::unique_ptr<PackedDelta>> PackDelta(const DeltaOp& op,
                                                         PackShare& share) override {
    return on_device_.PackDelta(op, share);
  }
  absl::StatusOr<int64_t> KvBlockBytes(const KvShape& shape) const override {
    return on_device_.KvBlockBytes(shape);
  }
  absl::StatusOr<std::unique_ptr<KvStorage>> AllocateKv(const KvShape& shape,
                                                        int64_t num_blocks) override {
    return on_device_.AllocateKv(shape, num_blocks);
  }
  void ProductOfRows(const PackedMatrix& weight, int64_t first_row, FloatRows x,
                     FloatRows y) override {
    on_device_.ProductOfRows(weight, first_row, x, y);
  }
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
  void Finish() override { on_device_.Finish(); }
  void Copy(FloatRows from, FloatRows to) override;
  void Copy(ActivationRows from, ActivationRows to) override;
  void Convert(FloatRows from, ActivationRows to) override;
  void Zero(FloatRows rows) override;
  void Accumulate(FloatRows x, FloatRows y) override;

 private:
  struct Staged {
    std::shared_ptr<void> memory;
    char* host = nullptr;
    int64_t bytes = 0;
    bool is_result = false;
  };
  // What the call takes in place of host rows. `is_result`: they are copied back.
  FloatRows Stage(FloatRows rows, bool is_result);
  ActivationRows Stage(ActivationRows rows, bool is_result);
  void* StageBytes(void* host, int64_t bytes, bool is_result);
  void Return();  // at the end of a call

  Backend& on_device_;
  const Rows rows_;
  std::map<std::pair<void*, int64_t>, std::shared_ptr<void>> resident_;  // by host rows
  std::vector<Staged> staged_;                                           // of the call
};

}  // namespace polyad::test
