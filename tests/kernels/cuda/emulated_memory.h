#pragma once

// Host memory in the place of a device's, for the emulator: aligned as device memory is, and
// activations in padded rows as kernels take them (device_rows.h).

#include <cstring>
#include <functional>
#include <span>
#include <vector>

#include "kernels/api/backend.h"
#include "kernels/cuda/device_rows.h"
#include "kernels/simt/simt.h"

namespace polyad::test {

// Bits or numbers; data() of none is null.
template <typename T>
class DeviceArray {
 public:
  DeviceArray() = default;
  explicit DeviceArray(std::span<const T> values)
      : words_((values.size_bytes() + sizeof(simt::Words4) - 1) / sizeof(simt::Words4)),
        size_(values.size()) {
    if (size_ > 0) std::memcpy(words_.data(), values.data(), values.size_bytes());
  }
  const T* data() const { return size_ == 0 ? nullptr : reinterpret_cast<const T*>(words_.data()); }

 private:
  std::vector<simt::Words4> words_;
  size_t size_ = 0;
};

// Rows of activations in the precision of the mode, `cols` of them and zeros up to whole tiles.
class DeviceActivations {
 public:
  DeviceActivations(bool exact, int64_t rows, int64_t cols);
  explicit DeviceActivations(ActivationRows x);
  int64_t stride() const { return stride_; }
  cuda::DeviceRows<simt::Bf16> rows() { return {Data<simt::Bf16>(false), rows_, cols_, stride_}; }
  cuda::DeviceRows<float> exact_rows() { return {Data<float>(true), rows_, cols_, stride_}; }
  // Null data in the other mode.
  cuda::DeviceRows<const simt::Bf16> rows() const {
    return {const_cast<DeviceActivations*>(this)->Data<simt::Bf16>(false), rows_, cols_, stride_};
  }
  cuda::DeviceRows<const float> exact_rows() const {
    return {const_cast<DeviceActivations*>(this)->Data<float>(true), rows_, cols_, stride_};
  }
  template <typename T>
  cuda::DeviceRows<const T> Of() const {
    if constexpr (std::is_same_v<T, float>) {
      return exact_rows();
    } else {
      return rows();
    }
  }

 private:
  template <typename T>
  T* Data(bool exact) {
    return exact == exact_ ? reinterpret_cast<T*>(words_.data()) : nullptr;
  }

  bool exact_;
  int64_t rows_;
  int64_t cols_;
  int64_t stride_;
  std::vector<simt::Words4> words_;
};

template <typename T>
cuda::DeviceRows<T> RowsOf(ActivationRows rows) {
  return {static_cast<T*>(rows.data), rows.rows, rows.cols, rows.stride};
}
template <typename T>
cuda::DeviceRows<const T> ConstRowsOf(ActivationRows rows) {
  return {static_cast<const T*>(rows.data), rows.rows, rows.cols, rows.stride};
}
inline cuda::DeviceRows<float> RowsOf(FloatRows rows) {
  return {rows.data, rows.rows, rows.cols, rows.stride};
}
inline cuda::DeviceRows<const float> ConstRowsOf(FloatRows rows) {
  return {rows.data, rows.rows, rows.cols, rows.stride};
}

// Element (row, col) of a stored matrix of numbers, as fp32.
float ElementOf(const TensorView& tensor, int64_t row, int64_t col);
// All of them times `scale`, row by row; of any stored matrix.
std::vector<float> ValuesOf(const TensorView& tensor, float scale = 1.0f);

// A segment's place in a call: rows, columns and weights. Of any segment of kernels/cuda.
template <typename Segment>
Segment Placed(Segment segment, const DeltaSegment& at) {
  segment.row_begin = static_cast<int32_t>(at.row_begin);
  segment.row_end = static_cast<int32_t>(at.row_end);
  segment.y_column = static_cast<int32_t>(at.y_column);
  segment.scale = at.scale;
  segment.row_scale = at.row_scale;
  return segment;
}

}  // namespace polyad::test
