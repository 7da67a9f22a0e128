#pragma once

// bf16 numbers in kernels, the same on both sides of simt.h: 16 bits, rounded to nearest even.
// NaN stays one. Included by emulated_device.h and cuda_device.h, which define SIMT_FUNCTION.

#include <cstdint>

namespace polyad::simt {

struct Bf16 {
  uint16_t bits;
};

#if defined(__CUDACC__)
SIMT_FUNCTION float FloatOfBits(uint32_t bits) { return __uint_as_float(bits); }
SIMT_FUNCTION uint32_t BitsOfFloat(float value) { return __float_as_uint(value); }
#else
SIMT_FUNCTION float FloatOfBits(uint32_t bits) { return std::bit_cast<float>(bits); }
SIMT_FUNCTION uint32_t BitsOfFloat(float value) { return std::bit_cast<uint32_t>(value); }
#endif

SIMT_FUNCTION float ToFloat(Bf16 value) {
  return FloatOfBits(static_cast<uint32_t>(value.bits) << 16);
}
SIMT_FUNCTION float ToFloat(float value) { return value; }

SIMT_FUNCTION Bf16 ToBf16(float value) {
  const uint32_t bits = BitsOfFloat(value);
  if (value != value) return {static_cast<uint16_t>((bits >> 16) | 0x40u)};
  return {static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

// Two of them as a register of a matrix fragment holds them: the lower column in the lower half.
SIMT_FUNCTION uint32_t PackBf16(Bf16 low, Bf16 high) {
  return static_cast<uint32_t>(low.bits) | (static_cast<uint32_t>(high.bits) << 16);
}

template <typename T>
SIMT_FUNCTION T FromFloat(float value);
template <>
SIMT_FUNCTION float FromFloat<float>(float value) {
  return value;
}
template <>
SIMT_FUNCTION Bf16 FromFloat<Bf16>(float value) {
  return ToBf16(value);
}

}  // namespace polyad::simt
