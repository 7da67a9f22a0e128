// y[t, column + o] += scale_t op(x[t])[o] for t in each segment, in the order given

#include "kernels/api/check.h"
#include "kernels/api/delta_check.h"
#include "kernels/reference/delta_terms.h"
#include "kernels/reference/element.h"
#include "kernels/reference/reference_backend.h"
#include "kernels/reference/stored_delta.h"

namespace polyad::ref {
namespace {

struct TermVisitor {
  const TermRow& row;

  template <typename Op>
  void operator()(const Op& op) const {
    if constexpr (requires { AddTerm(op, row); }) {
      AddTerm(op, row);
    } else {
      KERNEL_CHECK(false, "Apply takes deltas and bottlenecks only");
    }
  }
};

std::vector<double> RowOf(const ActivationRows& x, int64_t t) {
  std::vector<double> row(static_cast<size_t>(x.cols));
  for (int64_t i = 0; i < x.cols; ++i) row[static_cast<size_t>(i)] = ReadElement(x, t, i);
  return row;
}

double WeightOf(const DeltaSegment& segment, int64_t t) {
  const double row = segment.row_scale == nullptr ? 1.0 : segment.row_scale[t - segment.row_begin];
  return segment.scale * row;
}

// op(x[t]) times its weight, [out].
std::vector<double> Term(const DeltaSegment& segment, const ActivationRows& x, int64_t t) {
  const DeltaOp& op = static_cast<const StoredDelta&>(*segment.op).op();
  const DeltaShape shape = ShapeOf(op);
  KERNEL_CHECK(shape.in == 0 || shape.in == x.cols, "delta width");
  const std::vector<double> row = RowOf(x, t);
  std::vector<double> sum(static_cast<size_t>(shape.out), 0.0);
  std::visit(TermVisitor{{row, WeightOf(segment, t), sum}}, op);
  return sum;
}

}  // namespace

void ReferenceBackend::Apply(std::span<const DeltaSegment> segments, ActivationRows x,
                             FloatRows y) {
  for (const DeltaSegment& segment : segments) {
    for (int64_t t = segment.row_begin; t < segment.row_end; ++t) {
      const std::vector<double> sum = Term(segment, x, t);
      KERNEL_CHECK(segment.y_column + static_cast<int64_t>(sum.size()) <= y.cols, "delta columns");
      float* out = y.Row(t) + segment.y_column;
      for (size_t o = 0; o < sum.size(); ++o) out[o] = static_cast<float>(out[o] + sum[o]);
    }
  }
}

void ReferenceBackend::TransformInput(std::span<const DeltaSegment> segments, ActivationRows x) {
  for (const DeltaSegment& segment : segments) {
    const DeltaOp& op = static_cast<const StoredDelta&>(*segment.op).op();
    for (int64_t t = segment.row_begin; t < segment.row_end; ++t) {
      std::vector<double> row = RowOf(x, t);
      if (std::holds_alternative<Bottleneck>(op)) {
        const std::vector<double> sum = Term(segment, x, t);
        for (size_t i = 0; i < row.size(); ++i) row[i] += sum[i];
      } else {
        row = TransformedInput(op, row);
      }
      for (int64_t i = 0; i < x.cols; ++i) WriteElement(x, t, i, row[static_cast<size_t>(i)]);
    }
  }
}

}  // namespace polyad::ref
