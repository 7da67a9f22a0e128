#include "tests/kernels/cuda/staged_backend.h"

#include <cstring>
#include <utility>

#include "kernels/api/check.h"

namespace polyad::test {

void* StagedBackend::StageBytes(void* host, int64_t bytes, bool is_result) {
  if (host == nullptr || bytes <= 0) return host;
  const auto found = resident_.find({host, bytes});
  if (found != resident_.end()) return found->second.get();
  absl::StatusOr<std::shared_ptr<void>> memory = on_device_.Allocate(bytes);
  KERNEL_CHECK(memory.ok(), "memory of the device for a test's rows");
  on_device_.Finish();
  std::memcpy(memory->get(), host, static_cast<size_t>(bytes));
  const int64_t floats = (bytes + 3) / 4;  // memory ends at a multiple of 64 bytes
  on_device_.HostWrote({static_cast<float*>(memory->get()), 1, floats, floats});
  if (rows_ == Rows::kResident) return (resident_[{host, bytes}] = *std::move(memory)).get();
  staged_.push_back({*std::move(memory), static_cast<char*>(host), bytes, is_result});
  return staged_.back().memory.get();
}

FloatRows StagedBackend::Stage(FloatRows rows, bool is_result) {
  const int64_t count = (rows.rows - 1) * rows.stride + rows.cols;
  rows.data = static_cast<float*>(
      StageBytes(rows.data, count * static_cast<int64_t>(sizeof(float)), is_result));
  return rows;
}

ActivationRows StagedBackend::Stage(ActivationRows rows, bool is_result) {
  const int64_t count = (rows.rows - 1) * rows.stride + rows.cols;
  rows.data = StageBytes(rows.data, count * InfoOf(rows.dtype).block_bytes, is_result);
  return rows;
}

void StagedBackend::Return() {
  on_device_.Finish();
  for (const Staged& staged : staged_) {
    if (!staged.is_result) continue;
    std::memcpy(staged.host, staged.memory.get(), static_cast<size_t>(staged.bytes));
  }
  staged_.clear();
}

void StagedBackend::Embed(const PackedMatrix& table, std::span<const int32_t> ids, FloatRows out) {
  on_device_.Embed(table, ids, Stage(out, true));
  Return();
}

void StagedBackend::AddRows(const PackedMatrix& table, std::span<const int32_t> ids,
                            FloatRows out) {
  on_device_.AddRows(table, ids, Stage(out, true));
  Return();
}

void StagedBackend::Norm(const NormArgs& args, FloatRows x, ActivationRows y) {
  const FloatRows from = Stage(x, false);
  on_device_.Norm(args, from, Stage(y, true));
  Return();
}

void StagedBackend::Gemm(const GemmArgs& args, ActivationRows x, FloatRows y) {
  const ActivationRows from = Stage(x, false);
  on_device_.Gemm(args, from, Stage(y, true));
  Return();
}

void StagedBackend::RotateAndStore(const QkvArgs& args) {
  QkvArgs own = args;
  own.qkv = Stage(args.qkv, true);
  on_device_.RotateAndStore(own);
  Return();
}

void StagedBackend::Attention(const AttentionArgs& args) {
  AttentionArgs own = args;
  own.qkv = Stage(args.qkv, false);
  own.out = Stage(args.out, true);
  on_device_.Attention(own);
  Return();
}

void StagedBackend::AddGatedPrefix(const GatedPrefixArgs& args) {
  GatedPrefixArgs own = args;
  own.q = Stage(args.q, false);
  own.kv = Stage(args.kv, false);
  own.out = Stage(args.out, true);
  on_device_.AddGatedPrefix(own);
  Return();
}

void StagedBackend::Activate(ActivationKind kind, bool gated, FloatRows x, ActivationRows y) {
  const FloatRows from = Stage(x, false);
  on_device_.Activate(kind, gated, from, Stage(y, true));
  Return();
}

void StagedBackend::GatherRows(FloatRows x, std::span<const int32_t> rows, FloatRows out) {
  const FloatRows from = Stage(x, false);
  on_device_.GatherRows(from, rows, Stage(out, true));
  Return();
}

void StagedBackend::ArgMax(FloatRows logits, std::span<TokenScore> best) {
  on_device_.ArgMax(Stage(logits, false), best);
  Return();
}

void StagedBackend::Apply(std::span<const DeltaSegment> segments, ActivationRows x, FloatRows y) {
  const ActivationRows from = Stage(x, false);
  on_device_.Apply(segments, from, Stage(y, true));
  Return();
}

void StagedBackend::TransformInput(std::span<const DeltaSegment> segments, ActivationRows x) {
  on_device_.TransformInput(segments, Stage(x, true));
  Return();
}

void StagedBackend::TransformOutput(std::span<const DeltaSegment> segments, FloatRows y) {
  on_device_.TransformOutput(segments, Stage(y, true));
  Return();
}

void StagedBackend::TransformEmbedding(std::span<const DeltaSegment> segments,
                                       std::span<const int32_t> ids, FloatRows rows) {
  on_device_.TransformEmbedding(segments, ids, Stage(rows, true));
  Return();
}

void StagedBackend::Copy(FloatRows from, FloatRows to) {
  const FloatRows staged = Stage(from, false);
  on_device_.Copy(staged, Stage(to, true));
  Return();
}

void StagedBackend::Copy(ActivationRows from, ActivationRows to) {
  const ActivationRows staged = Stage(from, false);
  on_device_.Copy(staged, Stage(to, true));
  Return();
}

void StagedBackend::Convert(FloatRows from, ActivationRows to) {
  const FloatRows staged = Stage(from, false);
  on_device_.Convert(staged, Stage(to, true));
  Return();
}

void StagedBackend::Zero(FloatRows rows) {
  on_device_.Zero(Stage(rows, true));
  Return();
}

void StagedBackend::Accumulate(FloatRows x, FloatRows y) {
  const FloatRows from = Stage(x, false);
  on_device_.Accumulate(from, Stage(y, true));
  Return();
}

}  // namespace polyad::test
