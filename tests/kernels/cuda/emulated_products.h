#pragma once

// Matrices as the CUDA product kernels take them, in host memory for the emulator, and the ops that
// are such products: base products, embeddings, dense deltas and bottleneck adapters.

#include <memory>
#include <span>
#include <vector>

#include "kernels/api/backend.h"
#include "kernels/cuda/product_plan.h"
#include "tests/kernels/cuda/emulated_deltas.h"
#include "tests/kernels/cuda/emulated_memory.h"

namespace polyad::test {

// One stored matrix: tiles, and row by row in fp32 for the exact mode.
class DeviceTiles {
 public:
  DeviceTiles(const TensorView& weight, bool exact, float scale = 1.0f);
  cuda::WeightTiles view() const { return view_; }
  const float* exact() const { return exact_.data(); }
  // All of its outputs, of no rows yet.
  cuda::ProductSegment Segment() const;

 private:
  DeviceArray<uint32_t> tiles_;
  DeviceArray<float> scales_;
  DeviceArray<float> offsets_;
  DeviceArray<uint16_t> levels_;
  DeviceArray<float> exact_;
  cuda::WeightTiles view_;
};

// Parts stacked along their outputs, each in its own format.
class DeviceMatrix final : public PackedMatrix {
 public:
  DeviceMatrix(std::span<const TensorView> parts, bool exact);
  int64_t out() const override { return out_; }
  int64_t in() const override { return in_; }
  PrecisionBytes bytes() const override { return {Precision::kF32, 4 * out_ * in_}; }

  void Gemm(const GemmArgs& args, ActivationRows x, FloatRows y, simt::Stream stream) const;
  void ProductOfRows(int64_t first_row, FloatRows x, FloatRows y, simt::Stream stream) const;
  void Embed(std::span<const int32_t> ids, bool adds, FloatRows out, simt::Stream stream) const;

 private:
  const bool exact_;
  int64_t out_ = 0;
  int64_t in_ = 0;
  std::vector<std::unique_ptr<DeviceTiles>> parts_;
};

std::unique_ptr<DeviceDelta> MakeDeviceDense(const Dense& op, bool exact);
std::unique_ptr<DeviceDelta> MakeDeviceBottleneck(const Bottleneck& op, bool exact);

}  // namespace polyad::test
