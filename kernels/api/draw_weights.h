#pragma once

// What drawing a token from a row of logits computes, the same for the host (engine/model/
// sampler.cc) and for a device's kernel, so that both draw the same token: an id's weight is
// ExpNegative((logit - largest) * scale). Weights are added up by blocks of kDrawBlock ids: of each
// block kDrawLanes lanes, lane l the fp32 sum of ids l, l + kDrawLanes, ... in their order; then in
// double precision the lanes in order, then the last ids that fill no run of lanes; then the blocks
// in order.

#include <bit>
#include <cstdint>

#if defined(__CUDACC__)
#define POLYAD_HOST_DEVICE __host__ __device__
#else
#define POLYAD_HOST_DEVICE
#endif

namespace polyad {

inline constexpr int kDrawLanes = 16;
inline constexpr int kDrawBlock = 4096;  // ids

// 2^exponent, of [-126, 127].
POLYAD_HOST_DEVICE inline float PowerOfTwo(int32_t exponent) {
  const auto bits = static_cast<uint32_t>(exponent + 127) << 23;
#if defined(__CUDA_ARCH__)
  return __uint_as_float(bits);
#else
  return std::bit_cast<float>(bits);
#endif
}

// exp(x) for x <= 0, relative error below 2e-7, 0 below -87. The same operations on every machine,
// and simple enough for a compiler to vectorise: x = n ln 2 + r with |r| <= ln 2 / 2, the Taylor
// polynomial of e^r to degree 6.
POLYAD_HOST_DEVICE inline float ExpNegative(float x) {
  constexpr float kLog2e = 1.44269504f;
  constexpr float kLn2High = 0.693359375f;
  constexpr float kLn2Low = -2.12194440e-4f;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const float clamped = x > -87.0f ? x : -87.0f;
  const float shifted = clamped * kLog2e + kRound;
  const float n = shifted - kRound;
  const float r = (clamped - n * kLn2High) - n * kLn2Low;
  float e = 1.0f / 720;
  e = e * r + 1.0f / 120;
  e = e * r + 1.0f / 24;
  e = e * r + 1.0f / 6;
  e = e * r + 0.5f;
  e = e * r + 1.0f;
  e = e * r + 1.0f;
  const float scaled = e * PowerOfTwo(static_cast<int32_t>(n));
  return x > -87.0f ? scaled : 0.0f;
}

}  // namespace polyad
