#pragma once

// An adapter's op as the CUDA kernels take it, packed into device memory. Ops of one kind apply all
// of their segments in one go, as launches do. Immutable once packed.

#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/api/backend.h"
#include "kernels/cuda/device_memory.h"
#include "kernels/cuda/device_rows.h"

namespace polyad::cuda {

// Rows of activations on the device as kernels read them (device_rows.h): the caller's own where
// they lie so, else a copy of the call.
class InputRows {
 public:
  InputRows(CallQueue& queue, ActivationRows x);
  bool exact() const { return exact_; }
  int64_t stride() const { return stride_; }
  template <typename T>
  DeviceRows<const T> Of() const {
    return {static_cast<const T*>(data_), rows_, cols_, stride_};
  }

 private:
  const bool exact_;
  const int64_t rows_;
  const int64_t cols_;
  int64_t stride_;
  const void* data_;
};

template <typename T>
DeviceRows<T> RowsOf(ActivationRows rows) {
  return {static_cast<T*>(rows.data), rows.rows, rows.cols, rows.stride};
}
template <typename T>
DeviceRows<const T> ConstRowsOf(ActivationRows rows) {
  return {static_cast<const T*>(rows.data), rows.rows, rows.cols, rows.stride};
}
inline DeviceRows<float> RowsOf(FloatRows rows) {
  return {rows.data, rows.rows, rows.cols, rows.stride};
}
inline DeviceRows<const float> ConstRowsOf(FloatRows rows) {
  return {rows.data, rows.rows, rows.cols, rows.stride};
}

// A segment of kernels/cuda at its place in a call.
template <typename Segment>
Segment Placed(Segment segment, const DeltaSegment& at, CallQueue& queue) {
  segment.row_begin = static_cast<int32_t>(at.row_begin);
  segment.row_end = static_cast<int32_t>(at.row_end);
  segment.y_column = static_cast<int32_t>(at.y_column);
  segment.scale = at.scale;
  segment.row_scale = queue.Reach(at.row_scale, at.row_end - at.row_begin);
  return segment;
}

class PackedOp : public PackedDelta {
 public:
  enum Kind {
    kLowRank,
    kSignBits,
    kVector,
    kDense,
    kBottleneck,
    kSparse,
    kKronecker,
    kRotation,
    kEmbedding
  };
  PackedOp(Device& device, const DeltaOp& op, bool exact);
  DeltaCost cost() const override { return {memory_.bytes(), flops_}; }
  bool refused() const { return memory_.refused(); }

  virtual Kind kind() const = 0;
  // y += for all of `segments`, whose ops are all of this kind.
  virtual void Apply(std::span<const DeltaSegment> segments, const InputRows& x, FloatRows y,
                     CallQueue& queue) const;
  // The segment's rows of `to`, which x reads.
  virtual void TransformInput(const DeltaSegment& segment, const InputRows& x, ActivationRows to,
                              CallQueue& queue) const;
  virtual void TransformOutput(const DeltaSegment& segment, FloatRows y, CallQueue& queue) const;
  // `ids` on the device.
  virtual void TransformEmbedding(const DeltaSegment& segment, const int32_t* ids, FloatRows rows,
                                  CallQueue& queue) const;

 protected:
  bool exact() const { return exact_; }
  DeviceMemory memory_;

 private:
  const bool exact_;
  const int64_t flops_;
};

inline const PackedOp& OpOf(const DeltaSegment& segment) {
  return static_cast<const PackedOp&>(*segment.op);
}

// An op whose segments in a call are copies of one of its own, each at its place.
template <typename Segment>
class SegmentOp : public PackedOp {
 protected:
  using PackedOp::PackedOp;
  // For `segments` whose ops are all of this op's kind.
  static std::vector<Segment> PlacedAll(std::span<const DeltaSegment> segments, CallQueue& queue) {
    std::vector<Segment> placed;
    for (const DeltaSegment& at : segments) {
      placed.push_back(Placed(static_cast<const SegmentOp&>(OpOf(at)).segment_, at, queue));
    }
    return placed;
  }

  Segment segment_;
};

// INVALID_ARGUMENT where the op's shapes do not chain, RESOURCE_EXHAUSTED where memory is refused.
absl::StatusOr<std::unique_ptr<PackedOp>> PackOp(Device& device, const DeltaOp& op, bool exact);

std::unique_ptr<PackedOp> PackProductOp(Device& device, const DeltaOp& op, bool exact);
std::unique_ptr<PackedOp> PackSiteOp(Device& device, const DeltaOp& op, bool exact);

}  // namespace polyad::cuda
