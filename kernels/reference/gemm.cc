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

// y[t, o] = sum_i W[first_row + o, i] x[t, i]
void ReferenceBackend::ProductOfRows(const PackedMatrix& weight, int64_t first_row, FloatRows x,
                                     FloatRows y) {
  const auto& stored = static_cast<const StoredMatrix&>(weight);
  KERNEL_CHECK(x.cols == stored.in() && x.rows == y.rows && first_row >= 0 &&
                   first_row + y.cols <= stored.out(),
               "product of rows: shapes");
  std::vector<float> memory(static_cast<size_t>(x.rows * x.cols));
  const ActivationRows inputs{memory.data(), activation_dtype(), x.rows, x.cols, x.cols};
  Convert(x, inputs);
  for (int64_t o = 0; o < y.cols; ++o) {
    const std::vector<double> w = stored.Row(first_row + o);
    for (int64_t t = 0; t < x.rows; ++t) {
      double sum = 0;
      for (int64_t i = 0; i < x.cols; ++i) {
        sum += w[static_cast<size_t>(i)] * ReadElement(inputs, t, i);
      }
      y.Row(t)[o] = static_cast<float>(sum);
    }
  }
}

}  // namespace polyad::ref
