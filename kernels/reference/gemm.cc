// y[t, o] (+)= sum_i W[o, i] x[t, i] + bias[o]

#include "kernels/api/check.h"
#include "kernels/reference/element.h"
#include "kernels/reference/reference_backend.h"

namespace polyad::ref {

void ReferenceBackend::Gemm(const GemmArgs& args, ActivationRows x, FloatRows y) {
  const auto& weight = static_cast<const StoredMatrix&>(*args.weight);
  KERNEL_CHECK(x.cols == weight.in() && y.cols == weight.out() && x.rows == y.rows, "gemm shapes");
  for (int64_t o = 0; o < weight.out(); ++o) {
    const std::vector<double> w = weight.Row(o);
    for (int64_t t = 0; t < x.rows; ++t) {
      double sum = args.bias != nullptr ? args.bias[o] : 0.0;
      for (int64_t i = 0; i < x.cols; ++i) sum += w[static_cast<size_t>(i)] * ReadElement(x, t, i);
      float& out = y.Row(t)[o];
      out = static_cast<float>(args.accumulate ? out + sum : sum);
    }
  }
  Apply(args.deltas, x, y);
}

}  // namespace polyad::ref
