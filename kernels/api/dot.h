#pragma once

// The inner product of rows that no packed kernel takes: gates, and keys that stand outside the
// cache. One order of additions, so that its bits depend on the rows alone. Pure.

#include <cstdint>

namespace polyad {

// sum_i a[i] b[i]. Sixteen running sums, so that the compiler may use vectors; added up in order.
inline float Dot(const float* a, const float* b, int64_t count) {
  float lanes[16] = {};
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    for (int64_t lane = 0; lane < 16; ++lane) lanes[lane] += a[i + lane] * b[i + lane];
  }
  for (int64_t lane = 0; i < count; ++i, ++lane) lanes[lane] += a[i] * b[i];
  float sum = 0;
  for (const float lane : lanes) sum += lane;
  return sum;
}

}  // namespace polyad
