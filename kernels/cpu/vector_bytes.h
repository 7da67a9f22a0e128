#pragma once

// What the elements of vectors that an op keeps weigh: floats are fp32, all else are indices.

#include <type_traits>
#include <vector>

#include "kernels/api/precision_bytes.h"

namespace polyad::cpu {

template <typename... T>
PrecisionBytes BytesOf(const std::vector<T>&... vectors) {
  PrecisionBytes bytes;
  ((bytes += {std::is_same_v<T, float> ? Precision::kF32 : Precision::kIndex,
              static_cast<int64_t>(vectors.size() * sizeof(T))}),
   ...);
  return bytes;
}

}  // namespace polyad::cpu
