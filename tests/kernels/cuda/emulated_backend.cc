#include "tests/kernels/cuda/emulated_backend.h"

#include <utility>

#include "kernels/api/kv_shape.h"
#include "kernels/cuda/row_ops.cuh"
#include "kernels/reference/reference_backend.h"
#include "tests/kernels/cuda/emulated_deltas.h"
#include "tests/kernels/cuda/emulated_products.h"

namespace polyad::test {
namespace {

class EmulatedDelta final : public PackedDelta {
 public:
  EmulatedDelta(DeltaCost cost, std::unique_ptr<DeviceDelta> device)
      : cost_(cost), device_(std::move(device)) {}
  DeltaCost cost() const override { return cost_; }
  const DeviceDelta& device() const { return *device_; }

 private:
  const DeltaCost cost_;
  const std::unique_ptr<DeviceDelta> device_;
};

const EmulatedDelta& DeltaOf(const DeltaSegment& segment) {
  return static_cast<const EmulatedDelta&>(*segment.op);
}

// How many of the segments, from the first on, are ops of one kind.
size_t RunOf(std::span<const DeltaSegment> segments) {
  size_t count = 1;
  const auto kind = DeltaOf(segments[0]).device().kind();
  while (count < segments.size() && DeltaOf(segments[count]).device().kind() == kind) ++count;
  return count;
}

}  // namespace

EmulatedBackend::EmulatedBackend(ComputeMode mode, const simt::EmulatorOptions& options)
    : reference_(std::make_unique<ref::ReferenceBackend>(mode)), stream_(options) {}

absl::StatusOr<std::unique_ptr<PackedDelta>> EmulatedBackend::PackDelta(const DeltaOp& op,
                                                                        PackShare& share) {
  absl::StatusOr<std::unique_ptr<PackedDelta>> reference = reference_->PackDelta(op, share);
  if (!reference.ok()) return reference.status();
  return std::make_unique<EmulatedDelta>((*reference)->cost(), MakeDeviceDelta(op, exact()));
}

absl::StatusOr<std::unique_ptr<PackedMatrix>> EmulatedBackend::PackMatrix(
    std::span<const TensorView> parts) {
  return std::make_unique<DeviceMatrix>(parts, exact());
}

void EmulatedBackend::ProductOfRows(const PackedMatrix& weight, int64_t first_row, FloatRows x,
                                    FloatRows y) {
  static_cast<const DeviceMatrix&>(weight).ProductOfRows(first_row, x, y, &stream_);
}

void EmulatedBackend::Embed(const PackedMatrix& table, std::span<const int32_t> ids,
                            FloatRows out) {
  static_cast<const DeviceMatrix&>(table).Embed(ids, /*adds=*/false, out, &stream_);
}

void EmulatedBackend::AddRows(const PackedMatrix& table, std::span<const int32_t> ids,
                              FloatRows out) {
  static_cast<const DeviceMatrix&>(table).Embed(ids, /*adds=*/true, out, &stream_);
}

void EmulatedBackend::Gemm(const GemmArgs& args, ActivationRows x, FloatRows y) {
  static_cast<const DeviceMatrix&>(*args.weight).Gemm(args, x, y, &stream_);
  Apply(args.deltas, x, y);
}

void EmulatedBackend::Apply(std::span<const DeltaSegment> segments, ActivationRows x, FloatRows y) {
  if (segments.empty()) return;
  const DeviceActivations input(x);
  while (!segments.empty()) {
    const auto run = segments.first(RunOf(segments));
    std::vector<const DeviceDelta*> deltas;
    for (const DeltaSegment& segment : run) deltas.push_back(&DeltaOf(segment).device());
    deltas[0]->Apply(deltas, run, input, y, &stream_);
    segments = segments.subspan(run.size());
  }
}

void EmulatedBackend::TransformInput(std::span<const DeltaSegment> segments, ActivationRows x) {
  for (const DeltaSegment& segment : segments) {
    DeltaOf(segment).device().TransformInput(segment, DeviceActivations(x), x, &stream_);
  }
}

void EmulatedBackend::TransformOutput(std::span<const DeltaSegment> segments, FloatRows y) {
  for (const DeltaSegment& segment : segments) {
    DeltaOf(segment).device().TransformOutput(segment, y, &stream_);
  }
}

template <typename From, typename To>
void EmulatedBackend::MoveAll(cuda::Move move, cuda::DeviceRows<const From> from,
                              cuda::DeviceRows<To> to) {
  simt::Launch({to.rows, cuda::kRowThreads}, &stream_, cuda::MoveRows<From, To>, move, from, to);
}

void EmulatedBackend::Copy(FloatRows from, FloatRows to) {
  MoveAll(cuda::Move::kCopy, ConstRowsOf(from), RowsOf(to));
}
void EmulatedBackend::Copy(ActivationRows from, ActivationRows to) {
  if (to.dtype == DType::kF32) {
    MoveAll(cuda::Move::kCopy, ConstRowsOf<float>(from), RowsOf<float>(to));
  } else {
    MoveAll(cuda::Move::kCopy, ConstRowsOf<simt::Bf16>(from), RowsOf<simt::Bf16>(to));
  }
}
void EmulatedBackend::Convert(FloatRows from, ActivationRows to) {
  if (to.dtype == DType::kF32) {
    MoveAll(cuda::Move::kCopy, ConstRowsOf(from), RowsOf<float>(to));
  } else {
    MoveAll(cuda::Move::kCopy, ConstRowsOf(from), RowsOf<simt::Bf16>(to));
  }
}
void EmulatedBackend::Zero(FloatRows rows) {
  MoveAll(cuda::Move::kZero, ConstRowsOf(rows), RowsOf(rows));
}
void EmulatedBackend::Accumulate(FloatRows x, FloatRows y) {
  MoveAll(cuda::Move::kAdd, ConstRowsOf(x), RowsOf(y));
}

void EmulatedBackend::Norm(const NormArgs& args, FloatRows x, ActivationRows y) {
  const cuda::NormRowArgs own{args.kind == NormKind::kRms, args.eps, args.weight, args.bias,
                              ConstRowsOf(x)};
  const simt::LaunchShape shape{x.rows, cuda::kRowThreads};
  if (y.dtype == DType::kF32) {  // hooks norm fp32 rows in either mode
    simt::Launch(shape, &stream_, cuda::NormRows<float>, own, RowsOf<float>(y));
  } else {
    simt::Launch(shape, &stream_, cuda::NormRows<simt::Bf16>, own, RowsOf<simt::Bf16>(y));
  }
}

absl::StatusOr<std::unique_ptr<KvStorage>> EmulatedBackend::AllocateKv(const KvShape& shape,
                                                                       int64_t num_blocks) {
  absl::StatusOr<std::unique_ptr<KvStorage>> reference = reference_->AllocateKv(shape, num_blocks);
  if (!reference.ok()) return reference.status();
  const ComputeMode mode = exact() ? ComputeMode::kF32 : ComputeMode::kAuto;
  return std::make_unique<EmulatedKv>(*SettleKvShape(shape, mode), *std::move(reference));
}

void EmulatedBackend::RotateAndStore(const QkvArgs& args) {
  const auto& kv = static_cast<const EmulatedKv&>(*args.kv);
  if (kv.has_kernels()) return RotateAndStoreEmulated(args, &stream_);
  QkvArgs own = args;
  own.kv = &kv.reference();
  reference_->RotateAndStore(own);
}

void EmulatedBackend::Attention(const AttentionArgs& args) {
  const auto& kv = static_cast<const EmulatedKv&>(*args.kv);
  if (kv.has_kernels()) return AttendEmulated(args, &stream_);
  AttentionArgs own = args;
  own.kv = &kv.reference();
  reference_->Attention(own);
}

void EmulatedBackend::Activate(ActivationKind kind, bool gated, FloatRows x, ActivationRows y) {
  const simt::LaunchShape shape{x.rows, cuda::kRowThreads};
  if (y.dtype == DType::kF32) {
    simt::Launch(shape, &stream_, cuda::ActivateRows<float>, kind, gated, ConstRowsOf(x),
                 RowsOf<float>(y));
  } else {
    simt::Launch(shape, &stream_, cuda::ActivateRows<simt::Bf16>, kind, gated, ConstRowsOf(x),
                 RowsOf<simt::Bf16>(y));
  }
}

void EmulatedBackend::GatherRows(FloatRows x, std::span<const int32_t> rows, FloatRows out) {
  simt::Launch({static_cast<int64_t>(rows.size()), cuda::kRowThreads}, &stream_,
               cuda::GatherFloatRows, ConstRowsOf(x), rows.data(), RowsOf(out));
}

void EmulatedBackend::ArgMax(FloatRows logits, std::span<TokenScore> best) {
  std::vector<cuda::Scored> scored(best.size());
  simt::Launch({logits.rows, cuda::kRowThreads}, &stream_, cuda::ArgMaxRows, ConstRowsOf(logits),
               scored.data());
  for (size_t i = 0; i < best.size(); ++i) best[i] = {scored[i].index, scored[i].value};
}

void EmulatedBackend::TransformEmbedding(std::span<const DeltaSegment> segments,
                                         std::span<const int32_t> ids, FloatRows rows) {
  for (const DeltaSegment& segment : segments) {
    DeltaOf(segment).device().TransformEmbedding(segment, ids, rows, &stream_);
  }
}

}  // namespace polyad::test
