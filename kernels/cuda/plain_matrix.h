#pragma once

// A base weight of bf16 numbers, row by row, multiplied by a library (plain_products.h): what
// CudaMatrix asks, without the project's product kernels. Outputs and inputs are padded with zeros
// to whole multiples of 16. Where y does not lie as the library writes it, products go through
// memory of the call; a bias is put into y before them. A recording of a step ends at the first of
// them (CallQueue::LibraryStream).

#include <memory>
#include <optional>
#include <span>

#include "kernels/cuda/packed_weight.h"
#include "kernels/cuda/plain_products.h"

namespace polyad::cuda {

class PlainMatrix final : public CudaMatrix {
 public:
  // Whether all of the parts are matrices of numbers, f32 and f16 among them, which are rounded.
  static bool Takes(std::span<const TensorView> parts);
  static PlainShape ShapeOf(std::span<const TensorView> parts);
  // RESOURCE_EXHAUSTED where the device refuses memory. `products` outlives it.
  static absl::StatusOr<std::unique_ptr<PlainMatrix>> Pack(Device& device,
                                                           std::span<const TensorView> parts,
                                                           const PlainProducts& products);
  // Before it is used.
  void Use(const MatmulAlgorithm& algorithm) { algorithm_ = algorithm; }
  const simt::Bf16* rows() const { return rows_; }

  int64_t out() const override { return out_; }
  int64_t in() const override { return in_; }
  PrecisionBytes bytes() const override { return memory_.bytes(); }
  void Gemm(const InputRows& x, const float* bias, bool accumulate, FloatRows y,
            CallQueue& queue) const override;
  // Makes all products of the weight and keeps those of the rows: a shape has one algorithm.
  void ProductOfRows(int64_t first_row, const InputRows& x, FloatRows y,
                     CallQueue& queue) const override;
  void Embed(const int32_t* ids, bool adds, FloatRows out, CallQueue& queue) const override;

 private:
  PlainMatrix(Device& device, std::span<const TensorView> parts, const PlainProducts& products);
  MatmulCall CallOf(const InputRows& x, int64_t rows) const;
  // Products of outputs [first_out, first_out + y.cols) into y through memory of the call.
  void MultiplyThrough(int64_t first_out, const InputRows& x, bool accumulate, FloatRows y,
                       CallQueue& queue) const;

  const PlainProducts& products_;
  DeviceMemory memory_;
  const int64_t in_;
  int64_t out_ = 0;
  PlainShape shape_;
  const simt::Bf16* rows_ = nullptr;  // [shape_.out, shape_.in]
  MatmulAlgorithm algorithm_;
};

}  // namespace polyad::cuda
