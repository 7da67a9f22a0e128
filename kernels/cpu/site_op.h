#pragma once

// What the CPU backend keeps of an adapter's op, whatever its kind. Apply, TransformInput and
// TransformOutput divide the work by rows, and where rows are few by outputs too: a task owns a run
// of rows and runs, in the order of the segments, every op that touches them, so that no sum is
// split and a row's bits depend on its own ops alone. Immutable once packed.

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kernels/api/backend.h"
#include "kernels/api/delta_check.h"
#include "kernels/cpu/gemm_kernels.h"
#include "kernels/cpu/packed_matrix.h"
#include "kernels/cpu/row_kernels.h"

namespace polyad::cpu {

// The rows of one call: as they came, and prepared for products where an op asks for that.
struct SiteInputs {
  ActivationRows x;
  PanelTask panels;
};

// Rows [begin, end) of one segment; y is the segment's first column of row 0. An op that divides
// outputs takes part `slice` of `slices` of them, the others all.
struct SiteRows {
  const DeltaSegment& segment;
  const SiteInputs& inputs;
  FloatRows y;
  int64_t begin = 0;
  int64_t end = 0;
  FetchAhead* ahead = nullptr;  // for products that stream the op's reads(); or null
  int64_t slice = 0;
  int64_t slices = 1;

  float* Y(int64_t row) const { return y.Row(row) + segment.y_column; }
  float Weight(int64_t row) const {
    if (segment.row_scale == nullptr) return segment.scale;
    return segment.scale * segment.row_scale[row - segment.row_begin];
  }
};

struct SitePacking {
  ComputeMode mode = ComputeMode::kAuto;
  const GemmKernels& kernels;
  const RowKernels& row_kernels;
  PackShare& share;

  WeightFormat format() const {
    return mode == ComputeMode::kF32 ? WeightFormat::kF32 : WeightFormat::kBF16;
  }
};

// A step looks at thousands of ops before it runs them: what dividing the work asks for lies in the
// first line.
class alignas(64) CpuSiteOp : public PackedDelta {
 public:
  CpuSiteOp(const DeltaOp& op, const SitePacking& packing)
      : shape_(ShapeOf(op)), row_kernels_(packing.row_kernels), flops_(FlopsPerToken(op)) {}

  DeltaCost cost() const override { return {bytes_, flops_}; }
  const DeltaShape& shape() const { return shape_; }
  // Bytes one row streams, whoever packed them: what dividing the work goes by.
  int64_t streamed_bytes() const { return streamed_bytes_; }
  const RowKernels& row_kernels() const { return row_kernels_; }

  // Panels that Add streams, in order.
  std::span<const MemoryRange> reads() const {
    const size_t count = reads_[0].begin == nullptr ? 0 : reads_[1].begin == nullptr ? 1 : 2;
    return {reads_.data(), count};
  }

  // The product kernels that read SiteInputs::panels; null where the op does not.
  virtual const GemmKernels* panel_kernels() const { return nullptr; }
  // Whether Add heeds SiteRows::slice.
  virtual bool divides_outputs() const { return false; }
  // As an input op: x += op(x), and not TransformInput.
  virtual bool adds_to_input() const { return false; }
  // Each kind does what its stage calls for; the rest is a broken invariant.
  // y[t] += weight op(x[t])
  virtual void Add(const SiteRows& rows) const;
  // x = op(x), rows of fp32 [in]; y = op(y), one row of fp32 [out]; e = op(e, token)
  virtual void TransformInput(FloatRows x) const;
  virtual void TransformOutputRow(float* y) const;
  virtual void TransformEmbeddingRow(int32_t token, float* row) const;

 protected:
  void set_bytes(const PrecisionBytes& added, int64_t streamed) {
    bytes_ = added;
    streamed_bytes_ = streamed;
  }
  void set_bytes(const PrecisionBytes& added) { set_bytes(added, added.total()); }
  void add_read(MemoryRange range) { reads_[reads().size()] = range; }
  const SiteKernels& kernels() const { return row_kernels_.site; }

 private:
  DeltaShape shape_;
  int64_t streamed_bytes_ = 0;
  std::array<MemoryRange, 2> reads_;
  const RowKernels& row_kernels_;
  int64_t flops_;
  PrecisionBytes bytes_;
};

inline const CpuSiteOp& SiteOpOf(const DeltaSegment& segment) {
  return static_cast<const CpuSiteOp&>(*segment.op);
}

}  // namespace polyad::cpu
