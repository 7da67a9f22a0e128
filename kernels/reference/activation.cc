// silu(x) = x / (1 + exp(-x)); gelu_tanh(x) = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)));
// gelu_erf(x) = x/2 (1 + erf(x / sqrt 2)) (Hendrycks and Gimpel 2016, section 2); relu(x) = max(x,
// 0); quick_gelu(x) = x / (1 + exp(-1.702 x)); leaky_relu(x) = max(x, 0.01 x). Gated: y =
// act(x[0:n]) * x[n:2n].

#include <cmath>
#include <numbers>

#include "kernels/api/check.h"
#include "kernels/reference/act.h"
#include "kernels/reference/element.h"
#include "kernels/reference/reference_backend.h"

namespace polyad::ref {

double Act(ActivationKind kind, double x) {
  switch (kind) {
    case ActivationKind::kSilu:
      return x / (1.0 + std::exp(-x));
    case ActivationKind::kGeluTanh:
      return 0.5 * x *
             (1.0 + std::tanh(std::sqrt(2.0 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
    case ActivationKind::kGeluErf:
      return 0.5 * x * (1.0 + std::erf(x / std::numbers::sqrt2));
    case ActivationKind::kRelu:
      return x > 0.0 ? x : 0.0;
    case ActivationKind::kTanh:
      return std::tanh(x);
    case ActivationKind::kQuickGelu:
      return x / (1.0 + std::exp(-1.702 * x));
    case ActivationKind::kLeakyRelu:
      return x > 0.0 ? x : 0.01 * x;
    case ActivationKind::kSigmoid:
      return 1.0 / (1.0 + std::exp(-x));
    case ActivationKind::kIdentity:
      return x;
  }
  return 0.0;
}

void ReferenceBackend::Activate(ActivationKind kind, bool gated, FloatRows x, ActivationRows y) {
  KERNEL_CHECK(x.rows == y.rows && x.cols == (gated ? 2 * y.cols : y.cols), "activation shapes");
  for (int64_t t = 0; t < x.rows; ++t) {
    const float* row = x.Row(t);
    for (int64_t i = 0; i < y.cols; ++i) {
      WriteElement(y, t, i, Act(kind, row[i]) * (gated ? row[y.cols + i] : 1.0));
    }
  }
}

}  // namespace polyad::ref
