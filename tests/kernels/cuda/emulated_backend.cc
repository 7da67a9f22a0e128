#include "tests/kernels/cuda/emulated_backend.h"

#include <utility>

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
  reference_->TransformInput(OnReference(segments), x);
}

void EmulatedBackend::TransformOutput(std::span<const DeltaSegment> segments, FloatRows y) {
  reference_->TransformOutput(OnReference(segments), y);
}

void EmulatedBackend::TransformEmbedding(std::span<const DeltaSegment> segments,
                                         std::span<const int32_t> ids, FloatRows rows) {
  reference_->TransformEmbedding(OnReference(segments), ids, rows);
}

}  // namespace polyad::test
