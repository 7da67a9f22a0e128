#pragma once

// Matrices on the device, as the product kernels read them: base weights, and the matrices of ops.

#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/api/backend.h"
#include "kernels/cuda/packed_op.h"
#include "kernels/cuda/product_plan.h"

namespace polyad::cuda {

// A stored matrix: tiles, or row by row in fp32 for the exact mode. Its memory is `memory`'s.
class PackedTilesOnDevice {
 public:
  PackedTilesOnDevice(DeviceMemory& memory, const TensorView& weight, bool exact,
                      float scale = 1.0f);
  const WeightTiles& view() const { return view_; }
  const float* exact() const { return exact_; }
  // All of its outputs, of no rows yet.
  ProductSegment Segment() const;

 private:
  WeightTiles view_;
  const float* exact_ = nullptr;
};

// The segment reads rows of x from `row` on.
void ReadFrom(const InputRows& x, int64_t row, ProductSegment& segment);
// y: of segments whose sink is kSet or kAdd.
void RunProducts(std::span<const ProductSegment> segments, bool exact, FloatRows y,
                 CallQueue& queue);

absl::Status NoMemoryForWeight();  // RESOURCE_EXHAUSTED

// A base weight: tiles that the product kernels read, or rows that a library does
// (plain_matrix.h).
class CudaMatrix : public PackedMatrix {
 public:
  // As the calls of Backend; bias and ids on the device.
  virtual void Gemm(const InputRows& x, const float* bias, bool accumulate, FloatRows y,
                    CallQueue& queue) const = 0;
  virtual void ProductOfRows(int64_t first_row, const InputRows& x, FloatRows y,
                             CallQueue& queue) const = 0;
  virtual void Embed(const int32_t* ids, bool adds, FloatRows out, CallQueue& queue) const = 0;
};

// Parts stacked along their outputs, each in its own format.
class TiledMatrix final : public CudaMatrix {
 public:
  // RESOURCE_EXHAUSTED where the device refuses memory.
  static absl::StatusOr<std::unique_ptr<TiledMatrix>> Pack(Device& device,
                                                           std::span<const TensorView> parts,
                                                           bool exact);
  int64_t out() const override { return out_; }
  int64_t in() const override { return in_; }
  PrecisionBytes bytes() const override { return memory_.bytes(); }
  void Gemm(const InputRows& x, const float* bias, bool accumulate, FloatRows y,
            CallQueue& queue) const override;
  void ProductOfRows(int64_t first_row, const InputRows& x, FloatRows y,
                     CallQueue& queue) const override;
  void Embed(const int32_t* ids, bool adds, FloatRows out, CallQueue& queue) const override;

 private:
  TiledMatrix(Device& device, std::span<const TensorView> parts, bool exact);

  const bool exact_;
  DeviceMemory memory_;
  int64_t out_ = 0;
  int64_t in_ = 0;
  std::vector<PackedTilesOnDevice> parts_;
};

}  // namespace polyad::cuda
