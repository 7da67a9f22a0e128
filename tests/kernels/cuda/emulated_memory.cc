#include "tests/kernels/cuda/emulated_memory.h"

#include "kernels/reference/element.h"
#include "kernels/reference/reference_backend.h"

namespace polyad::test {

DeviceActivations::DeviceActivations(bool exact, int64_t rows, int64_t cols)
    : exact_(exact),
      rows_(rows),
      cols_(cols),
      stride_(cuda::RoundUp(cols, cuda::kRowElements)),
      words_(static_cast<size_t>(rows * stride_ / (exact ? 4 : 8))) {}

DeviceActivations::DeviceActivations(ActivationRows x)
    : DeviceActivations(x.dtype == DType::kF32, x.rows, x.cols) {
  const int64_t bytes = InfoOf(x.dtype).block_bytes;
  for (int64_t row = 0; row < rows_; ++row) {
    std::memcpy(reinterpret_cast<char*>(words_.data()) + row * stride_ * bytes,
                static_cast<const char*>(x.data) + row * x.stride * bytes,
                static_cast<size_t>(cols_ * bytes));
  }
}

float ElementOf(const TensorView& tensor, int64_t row, int64_t col) {
  return static_cast<float>(ref::ReadElement(tensor, row, col));
}

std::vector<float> ValuesOf(const TensorView& tensor, float scale) {
  const ref::StoredMatrix stored(std::span(&tensor, 1));
  std::vector<float> values;
  for (int64_t row = 0; row < tensor.rows; ++row) {
    for (const double value : stored.Row(row)) values.push_back(scale * static_cast<float>(value));
  }
  return values;
}

}  // namespace polyad::test
