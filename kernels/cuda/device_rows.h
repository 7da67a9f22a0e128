#pragma once

// Rows in device memory as kernels take them. Activations (T is Bf16 or float) begin at 16 bytes,
// their stride is a multiple of kRowElements, and the columns between cols and stride are zeros, so
// that kernels read whole tiles. fp32 rows of a residual stream may have any stride. Borrowed.

#include <cstdint>

#include "kernels/api/round_up.h"

namespace polyad::cuda {

inline constexpr int64_t kRowElements = 64;

template <typename T>
struct DeviceRows {
  T* data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;  // elements
};

constexpr int64_t DivideUp(int64_t value, int64_t by) { return (value + by - 1) / by; }
using polyad::RoundUp;

}  // namespace polyad::cuda
