#pragma once

// Resident bytes by the precision they are held in, which need not be the file's: what a matrix, an
// op, an adapter or a base occupies. Codes count by their width in memory (5- and 6-bit codes take
// 8 bits), E4M3 among the 8-bit ones; scales, zeros and minima of codes are numbers of their own;
// indices are rows, columns, groups and token ids. A plain value; the total is a sum over it.

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "kernels/api/dtype.h"

namespace polyad {

enum class Precision : uint8_t { kF32, kF16, kBF16, k8Bit, k4Bit, k1Bit, kIndex };

inline constexpr std::array<Precision, 7> kPrecisions = {
    Precision::kF32,  Precision::kF16,  Precision::kBF16, Precision::k8Bit,
    Precision::k4Bit, Precision::k1Bit, Precision::kIndex};

// As reports and metrics call it.
constexpr std::string_view NameOf(Precision precision) {
  constexpr std::array<std::string_view, kPrecisions.size()> kNames = {
      "f32", "f16", "bf16", "8-bit", "4-bit", "1-bit", "index"};
  return kNames[static_cast<size_t>(precision)];
}

class PrecisionBytes {
 public:
  constexpr PrecisionBytes() = default;
  constexpr PrecisionBytes(Precision precision, int64_t bytes) {
    bytes_[static_cast<size_t>(precision)] = bytes;
  }

  constexpr int64_t operator[](Precision precision) const {
    return bytes_[static_cast<size_t>(precision)];
  }
  constexpr int64_t total() const {
    int64_t sum = 0;
    for (const int64_t bytes : bytes_) sum += bytes;
    return sum;
  }
  constexpr PrecisionBytes& operator+=(const PrecisionBytes& other) {
    for (size_t i = 0; i < bytes_.size(); ++i) bytes_[i] += other.bytes_[i];
    return *this;
  }
  constexpr PrecisionBytes& operator-=(const PrecisionBytes& other) {
    for (size_t i = 0; i < bytes_.size(); ++i) bytes_[i] -= other.bytes_[i];
    return *this;
  }
  friend constexpr PrecisionBytes operator+(PrecisionBytes a, const PrecisionBytes& b) {
    return a += b;
  }
  friend constexpr bool operator==(const PrecisionBytes&, const PrecisionBytes&) = default;

 private:
  std::array<int64_t, kPrecisions.size()> bytes_ = {};
};

constexpr PrecisionBytes FloatBytes(size_t count) {
  return {Precision::kF32, static_cast<int64_t>(count * sizeof(float))};
}

// Of `bytes` of elements kept as a file stores them; a block is an f16 scale (and minimum) and its
// codes.
constexpr PrecisionBytes StoredBytes(DType dtype, int64_t bytes) {
  const int64_t blocks = bytes / (InfoOf(dtype).block_bytes > 0 ? InfoOf(dtype).block_bytes : 1);
  switch (dtype) {
    case DType::kF32:
    case DType::kF64:
      return {Precision::kF32, bytes};
    case DType::kF16:
      return {Precision::kF16, bytes};
    case DType::kBF16:
      return {Precision::kBF16, bytes};
    case DType::kQ8_0:
      return PrecisionBytes(Precision::kF16, 2 * blocks) +
             PrecisionBytes(Precision::k8Bit, 32 * blocks);
    case DType::kQ4_0:
      return PrecisionBytes(Precision::kF16, 2 * blocks) +
             PrecisionBytes(Precision::k4Bit, 16 * blocks);
    case DType::kQ4_1:
      return PrecisionBytes(Precision::kF16, 4 * blocks) +
             PrecisionBytes(Precision::k4Bit, 16 * blocks);
    case DType::kI8:
    case DType::kU8:
    case DType::kF8E4M3:
    case DType::kGrouped:
      return {Precision::k8Bit, bytes};
    case DType::kI16:
    case DType::kI32:
    case DType::kI64:
    case DType::kBool:
      break;
  }
  return {Precision::kIndex, bytes};
}

}  // namespace polyad
