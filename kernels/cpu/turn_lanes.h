#pragma once

// x <- H x * factor for one group of 32 or 64 numbers, H the Walsh-Hadamard matrix, in butterflies
// (a, b) <- (a + b, a - b) at distances n / 2 down to 1 (kv_codes.h). Sums only, so that every
// level gives the same bits. Compiled once per level (lanes.h).

#include "kernels/cpu/lanes.h"

namespace polyad::cpu::POLYAD_ISA {

// Lane i of the result is lane i ^ distance of x.
#if defined(__AVX512F__)
inline Lanes Swapped(Lanes x, int32_t distance) {
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  return {_mm512_permutexvar_ps(_mm512_xor_si512(lane, _mm512_set1_epi32(distance)), x.v)};
}
#elif defined(__AVX2__)
inline Lanes Swapped(Lanes x, int32_t distance) {
  if (distance == 8) return {x.hi, x.lo};
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const __m256i from = _mm256_xor_si256(lane, _mm256_set1_epi32(distance));
  return {_mm256_permutevar8x32_ps(x.lo, from), _mm256_permutevar8x32_ps(x.hi, from)};
}
#else
inline Lanes Swapped(const Lanes& x, int32_t distance) {
  return PerLane([&](int64_t i) { return x.v[i ^ distance]; });
}
#endif

inline constexpr float kTurnSigns[4][kLanes] = {
    {1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1},
    {1, 1, -1, -1, 1, 1, -1, -1, 1, 1, -1, -1, 1, 1, -1, -1},
    {1, 1, 1, 1, -1, -1, -1, -1, 1, 1, 1, 1, -1, -1, -1, -1},
    {1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1, -1},
};

template <int kVectors>
inline void TurnVectors(float factor, float* values) {
  Lanes x[kVectors];
  for (int i = 0; i < kVectors; ++i) x[i] = Load(values + i * kLanes);
  for (int distance = kVectors / 2; distance >= 1; distance /= 2) {
    for (int i = 0; i < kVectors; ++i) {
      if ((i & distance) != 0) continue;
      const Lanes sum = x[i] + x[i + distance];
      x[i + distance] = x[i] - x[i + distance];
      x[i] = sum;
    }
  }
  for (int bit = 3; bit >= 0; --bit) {
    const Lanes signs = Load(kTurnSigns[bit]);
    for (int i = 0; i < kVectors; ++i) x[i] = Swapped(x[i], 1 << bit) + x[i] * signs;
  }
  for (int i = 0; i < kVectors; ++i) Store(values + i * kLanes, x[i] * Set(factor));
}

// A group of 32 or 64 numbers. What is stored is divided by 8, what meets it multiplied by 8 / n:
// H H = n.
inline void TurnStored(int64_t count, float* values) {
  if (count == 64) return TurnVectors<4>(0.125f, values);
  TurnVectors<2>(0.125f, values);
}
inline void TurnBack(int64_t count, float* values) {
  if (count == 64) return TurnVectors<4>(0.125f, values);
  TurnVectors<2>(0.25f, values);
}

}  // namespace polyad::cpu::POLYAD_ISA
