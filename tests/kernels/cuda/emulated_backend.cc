#include "tests/kernels/cuda/emulated_backend.h"

#include <utility>

#include "kernels/api/kv_shape.h"
#include "kernels/cuda/row_ops.cuh"
#include "kernels/reference/reference_backend.h"
#include "tests/kernels/cuda/emulated_deltas.h"

namespace polyad::test {
namespace {

// A packed op as both sides have it.
class EmulatedDelta final : public PackedDelta {
 public:
  EmulatedDelta(std::unique_ptr<PackedDelta> reference, std::unique_ptr<DeviceDelta> device)
      : reference_(std::move(reference)), device_(std::move(device)) {}
  DeltaCost cost() const override { return reference_->cost(); }
  const PackedDelta* reference() const { return reference_.get(); }
  const DeviceDelta* device() const { return device_.get(); }

 private:
  const std::unique_ptr<PackedDelta> reference_;
  const std::unique_ptr<DeviceDelta> device_;
};

const EmulatedDelta& DeltaOf(const DeltaSegment& segment) {
  return static_cast<const EmulatedDelta&>(*segment.op);
}

std::vector<DeltaSegment> OnReference(std::span<const DeltaSegment> segments) {
  std::vector<DeltaSegment> own(segments.begin(), segments.end());
  for (DeltaSegment& segment : own) segment.op = DeltaOf(segment).reference();
  return own;
}

// How many of the segments, from the first on, are ops of one kind (or ops without a kernel).
size_t RunOf(std::span<const DeltaSegment> segments) {
  const auto kind = [](const DeltaSegment& segment) {
    const DeviceDelta* device = DeltaOf(segment).device();
    return device == nullptr ? -1 : device->kind();
  };
  size_t count = 1;
  while (count < segments.size() && kind(segments[count]) == kind(segments[0])) ++count;
  return count;
}

template <typename T>
cuda::DeviceRows<T> RowsOf(ActivationRows rows) {
  return {static_cast<T*>(rows.data), rows.rows, rows.cols, rows.stride};
}
cuda::DeviceRows<float> RowsOf(FloatRows rows) {
  return {rows.data, rows.rows, rows.cols, rows.stride};
}
cuda::DeviceRows<const float> ConstRowsOf(FloatRows rows) {
  return {rows.data, rows.rows, rows.cols, rows.stride};
}

// One vector op at a time: transforms go in the order given.
template <typename T>
void TransformRows(const DeltaSegment& segment, cuda::DeviceRows<T> rows, simt::Stream stream) {
  VectorPlan plan;
  plan.Add(segment, DeltaOf(segment).device()->vector());
  plan.Run(cuda::VectorStep::kMultiply, rows, stream);
}

}  // namespace

EmulatedBackend::EmulatedBackend(ComputeMode mode, const simt::EmulatorOptions& options)
    : reference_(std::make_unique<ref::ReferenceBackend>(mode)), stream_(options) {}

absl::StatusOr<std::unique_ptr<PackedDelta>> EmulatedBackend::PackDelta(const DeltaOp& op,
                                                                        PackShare& share) {
  absl::StatusOr<std::unique_ptr<PackedDelta>> reference = reference_->PackDelta(op, share);
  if (!reference.ok()) return reference.status();
  return std::make_unique<EmulatedDelta>(*std::move(reference), MakeDeviceDelta(op, exact()));
}

void EmulatedBackend::Apply(std::span<const DeltaSegment> segments, ActivationRows x, FloatRows y) {
  const DeviceInput input(x);
  while (!segments.empty()) {
    const auto run = segments.first(RunOf(segments));
    if (DeltaOf(run[0]).device() == nullptr) {
      reference_->Apply(OnReference(run), x, y);
    } else {
      std::vector<const DeviceDelta*> deltas;
      for (const DeltaSegment& segment : run) deltas.push_back(DeltaOf(segment).device());
      deltas[0]->Apply(deltas, run, input, y, &stream_);
    }
    segments = segments.subspan(run.size());
  }
}

void EmulatedBackend::TransformInput(std::span<const DeltaSegment> segments, ActivationRows x) {
  for (const DeltaSegment& segment : segments) {
    const DeviceDelta* device = DeltaOf(segment).device();
    if (device == nullptr || device->kind() != DeviceDelta::kScale) {
      reference_->TransformInput(OnReference({&segment, 1}), x);
    } else if (exact()) {
      TransformRows(segment, RowsOf<float>(x), &stream_);
    } else {
      TransformRows(segment, RowsOf<simt::Bf16>(x), &stream_);
    }
  }
}

void EmulatedBackend::TransformOutput(std::span<const DeltaSegment> segments, FloatRows y) {
  for (const DeltaSegment& segment : segments) {
    const DeviceDelta* device = DeltaOf(segment).device();
    if (device == nullptr || device->kind() != DeviceDelta::kScale) {
      reference_->TransformOutput(OnReference({&segment, 1}), y);
    } else {
      TransformRows(segment, RowsOf(y), &stream_);
    }
  }
}

void EmulatedBackend::Norm(const NormArgs& args, FloatRows x, ActivationRows y) {
  const cuda::NormRowArgs own{args.kind == NormKind::kRms, args.eps, args.weight, args.bias,
                              ConstRowsOf(x)};
  const simt::LaunchShape shape{x.rows, cuda::kRowThreads};
  if (exact()) {
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
  if (exact()) {
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
  reference_->TransformEmbedding(OnReference(segments), ids, rows);
}

}  // namespace polyad::test
