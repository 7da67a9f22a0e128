#pragma once

// A matrix of normal numbers, the same for the same seed. Test-only.

#include <cstdint>
#include <random>

#include "engine/adapters/dense_math.h"

namespace polyad {

inline Matrix RandomMatrix(int64_t rows, int64_t cols, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  Matrix m(rows, cols);
  for (float& value : m.values) value = normal(random);
  return m;
}

}  // namespace polyad
