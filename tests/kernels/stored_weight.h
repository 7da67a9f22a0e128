#pragma once

// A weight as files store it, beside the exact numbers it stands for: values from a seed that every
// stored format holds without rounding, so that a kernel and the reference see the same ones.

#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/api/tensor_view.h"

namespace polyad::test {

// A stored matrix and the exact numbers it stands for.
struct StoredWeight {
  std::vector<unsigned char> bytes;
  std::vector<float> values;  // [rows, cols]; every format here decodes to fp32 exactly
  DType dtype;
  int64_t rows;
  int64_t cols;
  std::shared_ptr<const GroupedRows> grouped = nullptr;  // in place of bytes for kGrouped
  TensorView view() const { return {bytes.data(), dtype, rows, cols, grouped.get()}; }
};

// Matrices of f32, f16 or bf16, or of a block format or grouped rows, whose cols are a multiple of
// 32 then.
StoredWeight MakeWeight(DType dtype, int64_t rows, int64_t cols, uint32_t seed);
// The given values, which must be bf16 numbers, as f32, f16 or bf16; those f16 has no normal number
// for become 0.
StoredWeight StoreWeight(DType dtype, int64_t rows, int64_t cols, const std::vector<float>& values);

}  // namespace polyad::test
