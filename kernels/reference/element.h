#pragma once

// One stored number at a time, as exactly as double holds it: how the reference reads weights and
// writes activations. Formats are those of kernels/api/dtype.h; bf16 and f16 are rounded to
// nearest, ties to even.

#include <cstdint>

#include "kernels/api/tensor_view.h"

namespace polyad::ref {

double Bf16ToDouble(uint16_t bits);
double F16ToDouble(uint16_t bits);
uint16_t ToBf16(double value);

// The stored value at [row, col].
double ReadElement(const TensorView& tensor, int64_t row, int64_t col);
double ReadElement(const ActivationRows& rows, int64_t row, int64_t col);
void WriteElement(const ActivationRows& rows, int64_t row, int64_t col, double value);

}  // namespace polyad::ref
