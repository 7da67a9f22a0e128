#pragma once

// The integer forms of K/V: a token's k and v of one head by themselves, so that what a token
// stores never depends on another one, in groups of dimensions (a last group may be shorter), each
// between its least and its largest number (the group-wise scheme of FlexGen, Sheng et al. 2023,
// section 4.2). For x in a group, all in fp32:
//   low = bf16(min), downwards; scale = bf16((max - low) / top), upwards
//   code = round(min((x - low) * (1 / scale), top)), ties to even, read as scale * code + low
// With a scale below kLeastKvScale scale and codes are 0. A group with a NaN or an infinity reads
// as NaN throughout. int4 turns a group first, so that no number stands out: of n numbers, padded
// with zeros to a multiple of 32, it stores H x / 8, H the Walsh-Hadamard matrix, by butterflies
// (a, b) <- (a + b, a - b) at distances n / 2 down to 1; k meets 8 / n H q, and 8 / n H turns the
// sum of values back. Its keys have a fifth bit: their errors are what costs most, as a score is
// exponentiated.

#include <cstdint>

#include "kernels/api/kv_format.h"

namespace polyad {

inline constexpr int64_t kKvGroup = 64;  // the largest
inline constexpr float kLeastKvScale = 1e-30f;

enum class KvPart : uint8_t { kKey, kValue };

constexpr int64_t CodeBitsOf(KvFormat format, KvPart part) {
  return format == KvFormat::kInt8 ? 8 : part == KvPart::kKey ? 5 : 4;
}
constexpr int64_t TopCodeOf(KvFormat format, KvPart part) {
  return (int64_t{1} << CodeBitsOf(format, part)) - 1;
}
constexpr int64_t GroupSizeOf(KvFormat format, KvPart part) {
  return format == KvFormat::kInt4 && part == KvPart::kKey ? 32 : kKvGroup;
}
constexpr bool IsTurned(KvFormat format) { return format == KvFormat::kInt4; }

}  // namespace polyad
