#pragma once

// A matrix of an adapter in panels of the product kernels (gemm_kernels.h), and the products of a
// few rows that a worker makes with it. Factors that view the same memory are packed once per
// adapter (PackShare).

#include <cstdint>
#include <memory>
#include <span>

#include "absl/status/statusor.h"
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/site_op.h"

namespace polyad::cpu {

struct PanelFactor {
  WeightFormat format = WeightFormat::kF32;
  const GemmKernels* kernels = nullptr;
  int64_t out = 0;
  int64_t in = 0;
  std::shared_ptr<const char> panels;
  int64_t bytes = 0;     // of the panels
  PrecisionBytes added;  // of them packed here and not before

  MemoryRange range() const { return {panels.get(), panels.get() + bytes}; }
  PanelKernel kernel() const { return KernelOf(*kernels, format); }
  // Sets what a task needs of the factor; inputs, rows and y are the caller's.
  void Describe(PanelTask* task) const;
};

// The matrix times `scale`. RESOURCE_EXHAUSTED when memory is refused.
absl::StatusOr<PanelFactor> PackFactor(const TensorView& matrix, float scale,
                                       const SitePacking& packing);

// fp32 rows of `cols` that a worker computed, at `stride` floats, as inputs for a factor's kernel:
// padded with zeros, and rounded to bf16 where the kernel reads bf16.
class MiddleRows {
 public:
  // Room for `num_rows` rows, all of the worker's scratch.
  MiddleRows(const PanelFactor& next, int64_t num_rows, int64_t cols, const SiteKernels& kernels,
             Scratch& scratch);

  float* Row(int64_t row) { return rows_ + row * stride_; }
  int64_t stride() const { return stride_; }
  // Inputs of the factor for the rows written so far; the rows may not change afterwards.
  PanelTask AsInputs(int64_t num_rows);

 private:
  const SiteKernels& kernels_;
  const int64_t cols_;
  const bool half_;
  int64_t stride_ = 0;
  float* rows_ = nullptr;
  uint16_t* half_rows_ = nullptr;
};

}  // namespace polyad::cpu
