// rms: y = x / sqrt(mean(x^2) + eps) w + b;  layer: y = (x - mean) / sqrt(var + eps) w + b. Four
// running sums.

#include <cmath>

#include "kernels/cpu/isa_functions.h"
#include "kernels/cpu/lanes.h"

namespace polyad::cpu::POLYAD_ISA {
namespace {

constexpr int64_t kChains = 4;  // covers the latency of an add; part of the arithmetic

// sum over i of term(x[i]) in an order that cols alone decides. term(0) must be 0 for the lanes
// past the end.
template <typename Term>
float SumOver(const float* x, int64_t cols, Term term) {
  Lanes sums[kChains] = {Zero(), Zero(), Zero(), Zero()};
  int64_t i = 0;
  for (; i + kChains * kLanes <= cols; i += kChains * kLanes) {
    for (int64_t chain = 0; chain < kChains; ++chain) {
      sums[chain] = term(Load(x + i + chain * kLanes), kLanes, sums[chain]);
    }
  }
  for (int64_t chain = 0; i < cols; i += kLanes, ++chain) {
    const int64_t n = cols - i < kLanes ? cols - i : kLanes;
    sums[chain] = term(LoadFirst(x + i, n), n, sums[chain]);
  }
  return Sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

template <typename Out>
void NormAs(const NormRow& args, const float* x, Out* y) {
  const auto n = static_cast<float>(args.cols);
  float mean = 0.0f;
  if (args.kind == NormKind::kLayer) {
    mean = SumOver(x, args.cols, [](Lanes v, int64_t, Lanes sum) { return sum + v; }) / n;
  }
  const float square = SumOver(x, args.cols, [&](Lanes v, int64_t valid, Lanes sum) {
    const Lanes centred = KeepBetween(v - Set(mean), 0, valid, Zero());
    return Fma(centred, centred, sum);
  });
  const Lanes inverse = Set(1.0f / sqrtf(square / n + args.eps));
  for (int64_t i = 0; i < args.cols; i += kLanes) {
    const int64_t valid = args.cols - i < kLanes ? args.cols - i : kLanes;
    const Lanes scaled = (LoadFirst(x + i, valid) - Set(mean)) * inverse;
    const Lanes weight = LoadFirst(args.weight + i, valid);
    const Lanes out = args.bias == nullptr ? scaled * weight
                                           : Fma(scaled, weight, LoadFirst(args.bias + i, valid));
    StoreFirst(y + i, out, valid);
  }
}

}  // namespace

void Norm(const NormRow& args, const float* x, void* y) {
  if (args.bf16_out) return NormAs(args, x, static_cast<uint16_t*>(y));
  NormAs(args, x, static_cast<float*>(y));
}

float InverseRms(const float* x, int64_t cols, float eps) {
  const float square = SumOver(x, cols, [](Lanes v, int64_t, Lanes sum) { return Fma(v, v, sum); });
  return 1.0f / sqrtf(square / static_cast<float>(cols) + eps);
}

}  // namespace polyad::cpu::POLYAD_ISA
