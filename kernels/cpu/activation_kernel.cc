// silu(x) = x / (1 + e^-x); gelu_tanh(x) = x / (1 + e^-2u), u = sqrt(2/pi) (x + 0.044715 x^3),
// which is x/2 (1 + tanh u); gelu_erf(x) = x/2 (1 + erf(x / sqrt 2)); relu(x) = max(x, 0);
// quick_gelu(x) = x / (1 + e^-1.702x); leaky_relu(x) = max(x, 0.01 x). Gated: y[i] = act(x[i])
// x[cols + i].

#include "kernels/cpu/isa_functions.h"
#include "kernels/cpu/lanes.h"

namespace polyad::cpu::POLYAD_ISA {
namespace {

// x / (1 + e^-s)
inline Lanes TimesSigmoid(Lanes x, Lanes s) { return x / (Set(1.0f) + Exp(Zero() - s)); }

struct Silu {
  Lanes operator()(Lanes x) const { return TimesSigmoid(x, x); }
};

struct GeluTanh {
  Lanes operator()(Lanes x) const {
    const Lanes cubic = Fma(x * x * x, Set(0.044715f), x);
    return TimesSigmoid(x, cubic * Set(1.5957691216057308f));  // 2 sqrt(2 / pi)
  }
};

// erf by Abramowitz and Stegun 7.1.26, |error| <= 1.5e-7: with z = |x| / sqrt 2 and t = 1 / (1 +
// 0.3275911 z), 1 - erf(z) = (a1 t + ... + a5 t^5) e^(-z^2).
struct GeluErf {
  Lanes operator()(Lanes x) const {
    const Lanes magnitude = Max(x, Zero() - x);
    const Lanes z = magnitude * Set(0.70710678118654752f);
    const Lanes t = Set(1.0f) / Fma(z, Set(0.3275911f), Set(1.0f));
    Lanes p = Set(1.061405429f);
    p = Fma(p, t, Set(-1.453152027f));
    p = Fma(p, t, Set(1.421413741f));
    p = Fma(p, t, Set(-0.284496736f));
    p = Fma(p, t, Set(0.254829592f));
    const Lanes tail = p * t * Exp(Zero() - z * z);  // 1 - erf(z)
    // x >= 0: x/2 (2 - tail);  x < 0: x/2 tail.
    return x * Set(0.5f) * SelectLess(x, Zero(), tail, Set(2.0f) - tail);
  }
};

struct Relu {
  Lanes operator()(Lanes x) const { return Max(Zero(), x); }
};

struct Sigmoid {
  Lanes operator()(Lanes x) const { return TimesSigmoid(Set(1.0f), x); }
};

// tanh(x) = 2 / (1 + e^-2x) - 1, which loses digits near zero: an odd series there.
struct Tanh {
  Lanes operator()(Lanes x) const {
    const Lanes magnitude = Max(x, Zero() - x);
    const Lanes far = Fma(Set(2.0f), TimesSigmoid(Set(1.0f), x + x), Set(-1.0f));
    const Lanes square = x * x;
    Lanes near = Fma(square, Set(-17.0f / 315.0f), Set(2.0f / 15.0f));
    near = Fma(near, square, Set(-1.0f / 3.0f));
    near = Fma(near * square, x, x);
    return SelectLess(magnitude, Set(0.25f), near, far);
  }
};

struct QuickGelu {
  Lanes operator()(Lanes x) const { return TimesSigmoid(x, x * Set(1.702f)); }
};

struct LeakyRelu {
  Lanes operator()(Lanes x) const { return Max(x, x * Set(0.01f)); }
};

struct Identity {
  Lanes operator()(Lanes x) const { return x; }
};

template <typename Act, typename Out>
void ActivateAs(const ActivateRow& args, const float* x, Out* y) {
  const Act act;
  for (int64_t i = 0; i < args.cols; i += kLanes) {
    const int64_t valid = args.cols - i < kLanes ? args.cols - i : kLanes;
    Lanes out = act(LoadFirst(x + i, valid));
    if (args.gated) out = out * LoadFirst(x + args.cols + i, valid);
    StoreFirst(y + i, out, valid);
  }
}

template <typename Act>
void ActivateWith(const ActivateRow& args, const float* x, void* y) {
  if (args.bf16_out) return ActivateAs<Act>(args, x, static_cast<uint16_t*>(y));
  ActivateAs<Act>(args, x, static_cast<float*>(y));
}

}  // namespace

void Activate(const ActivateRow& args, const float* x, void* y) {
  switch (args.kind) {
    case ActivationKind::kSilu:
      return ActivateWith<Silu>(args, x, y);
    case ActivationKind::kGeluTanh:
      return ActivateWith<GeluTanh>(args, x, y);
    case ActivationKind::kGeluErf:
      return ActivateWith<GeluErf>(args, x, y);
    case ActivationKind::kRelu:
      return ActivateWith<Relu>(args, x, y);
    case ActivationKind::kTanh:
      return ActivateWith<Tanh>(args, x, y);
    case ActivationKind::kQuickGelu:
      return ActivateWith<QuickGelu>(args, x, y);
    case ActivationKind::kLeakyRelu:
      return ActivateWith<LeakyRelu>(args, x, y);
    case ActivationKind::kSigmoid:
      return ActivateWith<Sigmoid>(args, x, y);
    case ActivationKind::kIdentity:
      return ActivateWith<Identity>(args, x, y);
  }
}

}  // namespace polyad::cpu::POLYAD_ISA
