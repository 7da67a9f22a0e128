#pragma once

// Inputs of op cases: reproducible bf16 numbers in f32 or activation rows, and norms for their
// tolerances.

#include <bit>
#include <cmath>
#include <cstdint>
#include <memory>
#include <random>
#include <vector>

#include "kernels/api/backend.h"

namespace polyad::test {

inline constexpr double kEps32 = 0x1p-24;
inline constexpr double kEps16 = 0x1p-8;  // bf16, half a unit in the last place

inline uint16_t Bf16Bits(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

inline float FromBf16Bits(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

// Normal numbers of the given deviation, rounded to bf16.
inline std::vector<float> RandomValues(int64_t count, uint32_t seed, float deviation = 1.0f) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, deviation);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = FromBf16Bits(Bf16Bits(normal(random)));
  return values;
}

// What the pair (reference, backend) may differ by from rounding the same number to an activation:
// one unit.
inline double RoundingOf(const Backend& backend, double value) {
  return backend.activation_dtype() == DType::kBF16 ? 2 * kEps16 * std::abs(value) : 0.0;
}

// Activation rows of a backend's dtype, owned.
class ActivationBuffer {
 public:
  ActivationBuffer(const Backend& backend, int64_t rows, int64_t cols)
      : dtype_(backend.activation_dtype()),
        rows_(rows),
        cols_(cols),
        bytes_(static_cast<size_t>(rows * cols * InfoOf(dtype_).block_bytes)) {}

  ActivationBuffer(const Backend& backend, int64_t rows, int64_t cols,
                   const std::vector<float>& values)
      : ActivationBuffer(backend, rows, cols) {
    for (size_t i = 0; i < values.size(); ++i) {
      if (dtype_ == DType::kBF16) {
        reinterpret_cast<uint16_t*>(bytes_.data())[i] = Bf16Bits(values[i]);
      } else {
        reinterpret_cast<float*>(bytes_.data())[i] = values[i];
      }
    }
  }

  ActivationRows rows() { return {bytes_.data(), dtype_, rows_, cols_, cols_}; }

  std::vector<double> Values() const {
    std::vector<double> values(static_cast<size_t>(rows_ * cols_));
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = dtype_ == DType::kBF16
                      ? FromBf16Bits(reinterpret_cast<const uint16_t*>(bytes_.data())[i])
                      : reinterpret_cast<const float*>(bytes_.data())[i];
    }
    return values;
  }

 private:
  DType dtype_;
  int64_t rows_;
  int64_t cols_;
  std::vector<char> bytes_;
};

// f32 rows, owned.
struct FloatBuffer {
  FloatBuffer(int64_t num_rows, int64_t num_cols, std::vector<float> initial)
      : values(std::move(initial)), rows(num_rows), cols(num_cols) {}
  FloatBuffer(int64_t num_rows, int64_t num_cols)
      : FloatBuffer(num_rows, num_cols,
                    std::vector<float>(static_cast<size_t>(num_rows * num_cols))) {}
  FloatRows view() { return {values.data(), rows, cols, cols}; }
  std::vector<double> Values() const { return {values.begin(), values.end()}; }

  std::vector<float> values;
  int64_t rows;
  int64_t cols;
};

inline double NormOf(const float* values, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += static_cast<double>(values[i]) * values[i];
  return std::sqrt(sum);
}

}  // namespace polyad::test
