#pragma once

// Conversions between stored number formats and fp32, in plain code for packing and tests. bf16 is
// the upper half of an fp32.

#include <bit>
#include <cstdint>

#include "kernels/api/half.h"

namespace polyad::cpu {

inline float FromBf16(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

// Nearest even; NaN stays NaN.
inline uint16_t ToBf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

using polyad::FromF16;

}  // namespace polyad::cpu
