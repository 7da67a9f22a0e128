#include "engine/adapters/activation_names.h"

#include <algorithm>
#include <cmath>
#include <string_view>
#include <utility>

#include "engine/io/quote.h"

namespace polyad {

StatusOr<ActivationKind> ActivationNamed(const std::string& name, const std::string& where) {
  constexpr std::pair<std::string_view, ActivationKind> kNames[] = {
      {"relu", ActivationKind::kRelu},
      {"gelu", ActivationKind::kGeluErf},
      {"gelu_new", ActivationKind::kGeluTanh},
      {"gelu_pytorch_tanh", ActivationKind::kGeluTanh},
      {"silu", ActivationKind::kSilu},
      {"swish", ActivationKind::kSilu},
      {"tanh", ActivationKind::kTanh},
      {"quick_gelu", ActivationKind::kQuickGelu},
      {"leaky_relu", ActivationKind::kLeakyRelu},
      {"leakyrelu", ActivationKind::kLeakyRelu},
      {"sigmoid", ActivationKind::kSigmoid},
      {"linear", ActivationKind::kIdentity},
      {"identity", ActivationKind::kIdentity}};
  for (const auto& [known, activation] : kNames) {
    if (known == name) return activation;
  }
  return Unimplemented("%s: activation %s is not served", where, Quote(name));
}

double Activate(ActivationKind activation, double x) {
  switch (activation) {
    case ActivationKind::kRelu:
      return std::max(x, 0.0);
    case ActivationKind::kGeluErf:
      return 0.5 * x * (1.0 + std::erf(x * M_SQRT1_2));
    case ActivationKind::kGeluTanh:
      return 0.5 * x * (1.0 + std::tanh(std::sqrt(2.0 / M_PI) * (x + 0.044715 * x * x * x)));
    case ActivationKind::kSilu:
      return x / (1.0 + std::exp(-x));
    case ActivationKind::kTanh:
      return std::tanh(x);
    case ActivationKind::kQuickGelu:
      return x / (1.0 + std::exp(-1.702 * x));
    case ActivationKind::kLeakyRelu:
      return x > 0 ? x : 0.01 * x;
    case ActivationKind::kSigmoid:
      return 1.0 / (1.0 + std::exp(-x));
    case ActivationKind::kIdentity:
      return x;
  }
  return x;
}

}  // namespace polyad
