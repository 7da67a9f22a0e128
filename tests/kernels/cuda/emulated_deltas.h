#pragma once

// Adapter ops as the CUDA kernels take them, held in host memory for the emulator: what
// Backend::PackDelta will do with device memory. An op of one kind applies all segments of that
// kind in one go, as a launch does. Owned by the packed op.

#include <memory>
#include <span>
#include <vector>

#include "kernels/api/backend.h"
#include "kernels/cuda/device_rows.h"
#include "kernels/cuda/row_ops.cuh"
#include "kernels/simt/simt.h"
#include "tests/kernels/cuda/emulated_memory.h"

namespace polyad::test {

class DeviceDelta {
 public:
  enum Kind {
    kLowRank,
    kSignBits,
    kBias,
    kScale,
    kDense,
    kBottleneck,
    kSparse,
    kKronecker,
    kRotation,
    kEmbedding
  };

  virtual ~DeviceDelta() = default;
  virtual Kind kind() const = 0;
  virtual std::span<const float> vector() const { return {}; }  // of kBias and kScale
  // y += for all of `segments`, whose ops are `deltas`, all of this kind.
  virtual void Apply(std::span<const DeviceDelta* const> deltas,
                     std::span<const DeltaSegment> segments, const DeviceActivations& x,
                     FloatRows y, simt::Stream stream) const;
  // The segment's rows of `to`, which are those of x.
  virtual void TransformInput(const DeltaSegment& segment, const DeviceActivations& x,
                              ActivationRows to, simt::Stream stream) const;
  virtual void TransformOutput(const DeltaSegment& segment, FloatRows y, simt::Stream stream) const;
  virtual void TransformEmbedding(const DeltaSegment& segment, std::span<const int32_t> ids,
                                  FloatRows rows, simt::Stream stream) const;
};

// The blocks of a launch of vector ops, one row of one segment each.
class VectorPlan {
 public:
  void Add(const DeltaSegment& segment, std::span<const float> values);
  template <typename T>
  void Run(cuda::VectorStep step, cuda::DeviceRows<T> rows, simt::Stream stream) const {
    if (items_.empty()) return;
    simt::Launch({static_cast<int64_t>(items_.size()), cuda::kRowThreads}, stream,
                 cuda::ApplyVectors<T>, step, segments_.data(), items_.data(), rows);
  }

 private:
  std::vector<cuda::VectorSegment> segments_;
  std::vector<cuda::VectorItem> items_;
};

std::unique_ptr<DeviceDelta> MakeDeviceDelta(const DeltaOp& op, bool exact);

}  // namespace polyad::test
