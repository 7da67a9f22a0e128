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

namespace polyad::test {

// Activations of a call in padded rows (device_rows.h).
class DeviceInput {
 public:
  explicit DeviceInput(ActivationRows x);
  cuda::DeviceRows<const simt::Bf16> rows() const;
  cuda::DeviceRows<const float> exact_rows() const;

 private:
  int64_t rows_;
  int64_t cols_;
  int64_t stride_;
  std::vector<simt::Words4> words_;  // aligned as device memory is
  std::vector<simt::Words4> exact_words_;
};

class DeviceDelta {
 public:
  enum Kind { kLowRank, kSignBits, kBias, kScale };

  virtual ~DeviceDelta() = default;
  virtual Kind kind() const = 0;
  virtual std::span<const float> vector() const { return {}; }  // of kBias and kScale
  // y += for all of `segments`, whose ops are `deltas`, all of this kind.
  virtual void Apply(std::span<const DeviceDelta* const> deltas,
                     std::span<const DeltaSegment> segments, const DeviceInput& x, FloatRows y,
                     simt::Stream stream) const = 0;
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

// Null where kernels/cuda has no kernel for the op.
std::unique_ptr<DeviceDelta> MakeDeviceDelta(const DeltaOp& op, bool exact);

// Element (row, col) of a stored matrix, as fp32.
float ElementOf(const TensorView& tensor, int64_t row, int64_t col);

}  // namespace polyad::test
