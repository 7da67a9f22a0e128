#pragma once

// Arithmetic on sizes that files claim: nullopt instead of wrapping. Inputs are non-negative by
// contract.

#include <cstdint>
#include <optional>

namespace polyad {

inline std::optional<int64_t> CheckedMul(int64_t a, int64_t b) {
  int64_t product = 0;
  if (__builtin_mul_overflow(a, b, &product)) return std::nullopt;
  return product;
}

inline std::optional<int64_t> CheckedAdd(int64_t a, int64_t b) {
  int64_t sum = 0;
  if (__builtin_add_overflow(a, b, &sum)) return std::nullopt;
  return sum;
}

}  // namespace polyad
