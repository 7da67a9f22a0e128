// rms:   y = x / sqrt(mean(x^2) + eps) * w + b        (Zhang and Sennrich 2019, eq. 4)
// layer: y = (x - mean(x)) / sqrt(var(x) + eps) * w + b   (Ba, Kiros and Hinton 2016, section 3)

#include <cmath>

#include "kernels/reference/element.h"
#include "kernels/reference/reference_backend.h"

namespace polyad::ref {

void ReferenceBackend::Norm(const NormArgs& args, FloatRows x, ActivationRows y) {
  const auto n = static_cast<double>(x.cols);
  for (int64_t t = 0; t < x.rows; ++t) {
    const float* row = x.Row(t);
    double mean = 0.0;
    if (args.kind == NormKind::kLayer) {
      for (int64_t i = 0; i < x.cols; ++i) mean += row[i] / n;
    }
    double mean_square = 0.0;
    for (int64_t i = 0; i < x.cols; ++i) mean_square += (row[i] - mean) * (row[i] - mean) / n;
    const double inverse = 1.0 / std::sqrt(mean_square + static_cast<double>(args.eps));
    for (int64_t i = 0; i < x.cols; ++i) {
      const double bias = args.bias != nullptr ? args.bias[i] : 0.0;
      WriteElement(y, t, i, (row[i] - mean) * inverse * args.weight[i] + bias);
    }
  }
}

}  // namespace polyad::ref
