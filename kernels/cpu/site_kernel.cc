// Element-wise passes over one row, a row vector times a matrix, and a row's pairs rotated.

#include "kernels/cpu/isa_functions.h"
#include "kernels/cpu/lanes.h"

namespace polyad::cpu::POLYAD_ISA {
namespace {

// Calls at(i, valid) for each run of 16 of n.
template <typename At>
inline void ForLanes(int64_t n, At at) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) at(i, kLanes);
  if (i < n) at(i, n - i);
}

void Widen(const uint16_t* x, float* y, int64_t n) {
  ForLanes(n, [=](int64_t i, int64_t valid) { StoreFirst(y + i, LoadFirst(x + i, valid), valid); });
}

void Narrow(const float* x, uint16_t* y, int64_t n) {
  ForLanes(n, [=](int64_t i, int64_t valid) { StoreFirst(y + i, LoadFirst(x + i, valid), valid); });
}

void Multiply(const float* a, float* y, int64_t n) {
  ForLanes(n, [=](int64_t i, int64_t valid) {
    StoreFirst(y + i, LoadFirst(a + i, valid) * LoadFirst(y + i, valid), valid);
  });
}

void AddScaled(float w, const float* x, float* y, int64_t n) {
  const Lanes weight = Set(w);
  ForLanes(n, [=](int64_t i, int64_t valid) {
    StoreFirst(y + i, Fma(weight, LoadFirst(x + i, valid), LoadFirst(y + i, valid)), valid);
  });
}

void AddProduct(float w, const float* a, const float* x, float* y, int64_t n) {
  const Lanes weight = Set(w);
  ForLanes(n, [=](int64_t i, int64_t valid) {
    const Lanes product = weight * LoadFirst(a + i, valid);
    StoreFirst(y + i, Fma(product, LoadFirst(x + i, valid), LoadFirst(y + i, valid)), valid);
  });
}

void RotatePairs(const float* f, const float* g, int64_t half, float* y, int64_t n) {
  for (int64_t begin = 0; begin < n; begin += 2 * half) {
    ForLanes(half, [=](int64_t i, int64_t valid) {
      const int64_t low = begin + i;
      const int64_t high = low + half;
      const Lanes first = LoadFirst(y + low, valid);
      const Lanes second = LoadFirst(y + high, valid);
      StoreFirst(y + low, LoadFirst(f + low, valid) * first - LoadFirst(g + low, valid) * second,
                 valid);
      StoreFirst(y + high,
                 Fma(LoadFirst(f + high, valid), second, LoadFirst(g + high, valid) * first),
                 valid);
    });
  }
}

// Calls sink(j, sum, valid) for each run of columns; four runs at a time hide the latency of a sum.
template <typename Sink>
inline void CombineInto(const CombineTask& task, Sink sink) {
  constexpr int64_t kRuns = 4;
  int64_t j = 0;
  for (; j + kRuns * kLanes <= task.n; j += kRuns * kLanes) {
    Lanes sums[kRuns] = {Zero(), Zero(), Zero(), Zero()};
    const float* m = task.m + j;
    for (int64_t i = 0; i < task.count; ++i, m += task.stride) {
      const Lanes u = Set(task.u[i]);
      for (int64_t run = 0; run < kRuns; ++run) {
        sums[run] = Fma(u, Load(m + run * kLanes), sums[run]);
      }
    }
    for (int64_t run = 0; run < kRuns; ++run) sink(j + run * kLanes, sums[run], kLanes);
  }
  for (; j < task.n; j += kLanes) {
    const int64_t valid = task.n - j < kLanes ? task.n - j : kLanes;
    Lanes sum = Zero();
    for (int64_t i = 0; i < task.count; ++i) {
      sum = Fma(Set(task.u[i]), LoadFirst(task.m + i * task.stride + j, valid), sum);
    }
    sink(j, sum, valid);
  }
}

void Combine(const CombineTask& task, float* v) {
  CombineInto(task, [=](int64_t j, Lanes sum, int64_t valid) { StoreFirst(v + j, sum, valid); });
}

void AddCombined(const CombineTask& task, float w, float* y) {
  CombineInto(task, [=](int64_t j, Lanes sum, int64_t valid) {
    StoreFirst(y + j, Fma(Set(w), sum, LoadFirst(y + j, valid)), valid);
  });
}

}  // namespace

SiteKernels MakeSiteKernels() {
  SiteKernels kernels;
  kernels.widen = Widen;
  kernels.narrow = Narrow;
  kernels.multiply = Multiply;
  kernels.add_scaled = AddScaled;
  kernels.add_product = AddProduct;
  kernels.rotate_pairs = RotatePairs;
  kernels.combine = Combine;
  kernels.add_combined = AddCombined;
  kernels.add_sparse = AddSparse;
  kernels.sign_level = SignLevelOf();
  kernels.add_signs = AddSigns;
  return kernels;
}

}  // namespace polyad::cpu::POLYAD_ISA
