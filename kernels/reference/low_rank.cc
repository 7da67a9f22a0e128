// y[t, column + o] += scale * sum_r B[o, r] (sum_i A[r, i] x[t, i]) for t in each segment, in the
// order given

#include "kernels/api/check.h"
#include "kernels/reference/element.h"
#include "kernels/reference/reference_backend.h"

namespace polyad::ref {
namespace {

void ApplyToRow(const StoredLowRank& op, const ActivationRows& x, int64_t t, float* y) {
  std::vector<double> hidden(static_cast<size_t>(op.a.out()), 0.0);
  for (int64_t r = 0; r < op.a.out(); ++r) {
    for (int64_t i = 0; i < x.cols; ++i) {
      hidden[static_cast<size_t>(r)] += ReadElement(op.a.view(), r, i) * ReadElement(x, t, i);
    }
  }
  for (int64_t o = 0; o < op.b.out(); ++o) {
    double sum = 0.0;
    for (int64_t r = 0; r < op.b.in(); ++r) {
      sum += ReadElement(op.b.view(), o, r) * hidden[static_cast<size_t>(r)];
    }
    y[o] = static_cast<float>(y[o] + op.scale * sum);
  }
}

}  // namespace

void ReferenceBackend::Apply(std::span<const DeltaSegment> segments, ActivationRows x,
                             FloatRows y) {
  for (const DeltaSegment& segment : segments) {
    const auto& op = static_cast<const StoredLowRank&>(*segment.op);
    KERNEL_CHECK(op.a.in() == x.cols && segment.y_column + op.b.out() <= y.cols, "delta shapes");
    for (int64_t t = segment.row_begin; t < segment.row_end; ++t) {
      ApplyToRow(op, x, t, y.Row(t) + segment.y_column);
    }
  }
}

}  // namespace polyad::ref
