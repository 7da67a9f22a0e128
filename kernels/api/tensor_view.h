#pragma once

// Borrowed 2-D memory, row-major. A view owns nothing and checks nothing; whoever makes one
// guarantees the bytes.

#include <cstdint>

#include "kernels/api/dtype.h"
#include "kernels/api/grouped_rows.h"

namespace polyad {

// A stored weight as files hold it: [rows = out, cols = in], rows contiguous and unpadded.
struct TensorView {
  const void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  const GroupedRows* grouped = nullptr;  // the matrix itself where dtype is kGrouped; data is null
};

// fp32 rows that kernels read and write: [rows, cols], `stride` floats apart.
struct FloatRows {
  float* data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;

  float* Row(int64_t row) const { return data + row * stride; }
  FloatRows Slice(int64_t row_begin, int64_t row_end) const {
    return {data + row_begin * stride, row_end - row_begin, cols, stride};
  }
  FloatRows Columns(int64_t col_begin, int64_t num_cols) const {
    return {data + col_begin, rows, num_cols, stride};
  }
};

// Activations that feed a matrix product: f32 in the exact mode, bf16 otherwise
// (Backend::activation_dtype).
struct ActivationRows {
  void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;  // elements

  ActivationRows Slice(int64_t row_begin, int64_t row_end) const {
    const int64_t offset = row_begin * stride * InfoOf(dtype).block_bytes;
    return {static_cast<char*>(data) + offset, dtype, row_end - row_begin, cols, stride};
  }
};

}  // namespace polyad
