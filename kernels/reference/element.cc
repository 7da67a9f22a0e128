#include "kernels/reference/element.h"

#include <bit>
#include <cmath>
#include <cstring>

#include "kernels/api/check.h"

namespace polyad::ref {
namespace {

template <typename T>
T Load(const unsigned char* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof(T));
  return value;
}

int Nibble(const unsigned char* quants, int64_t i) {
  return i < 16 ? quants[i] & 15 : quants[i - 16] >> 4;
}

// Element i of a block or, for plain types, of a single value.
double Decode(DType dtype, const unsigned char* block, int64_t i) {
  switch (dtype) {
    case DType::kF32:
      return Load<float>(block);
    case DType::kF16:
      return F16ToDouble(Load<uint16_t>(block));
    case DType::kBF16:
      return Bf16ToDouble(Load<uint16_t>(block));
    case DType::kQ8_0:
      return F16ToDouble(Load<uint16_t>(block)) * Load<int8_t>(block + 2 + i);
    case DType::kQ4_0:
      return F16ToDouble(Load<uint16_t>(block)) * (Nibble(block + 2, i) - 8);
    case DType::kQ4_1:
      return F16ToDouble(Load<uint16_t>(block)) * Nibble(block + 4, i) +
             F16ToDouble(Load<uint16_t>(block + 2));
    case DType::kI8:
    case DType::kU8:
    case DType::kI16:
    case DType::kI32:
    case DType::kI64:
    case DType::kF64:
    case DType::kBool:
    case DType::kF8E4M3:
    case DType::kGrouped:
      break;
  }
  KERNEL_CHECK(false, "weights are f32, f16, bf16, q8_0, q4_0 or q4_1");
  return 0;
}

}  // namespace

double Bf16ToDouble(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

double F16ToDouble(uint16_t bits) {
  const double sign = (bits >> 15) != 0 ? -1.0 : 1.0;
  const int exponent = (bits >> 10) & 31;
  const int mantissa = bits & 1023;
  if (exponent == 31) return mantissa != 0 ? std::nan("") : sign * INFINITY;
  if (exponent == 0) return sign * std::ldexp(mantissa, -24);
  return sign * std::ldexp(1024 + mantissa, exponent - 25);
}

uint16_t ToBf16(double value) {
  const uint32_t bits = std::bit_cast<uint32_t>(static_cast<float>(value));
  if (std::isnan(value)) return static_cast<uint16_t>((bits >> 16) | 0x40);
  const uint32_t half = 0x7fff + ((bits >> 16) & 1);
  return static_cast<uint16_t>((bits + half) >> 16);
}

double ReadElement(const TensorView& tensor, int64_t row, int64_t col) {
  const DTypeInfo info = InfoOf(tensor.dtype);
  const auto* bytes = static_cast<const unsigned char*>(tensor.data);
  const unsigned char* block = bytes + row * RowBytes(tensor.dtype, tensor.cols) +
                               col / info.block_elements * info.block_bytes;
  return Decode(tensor.dtype, block, col % info.block_elements);
}

double ReadElement(const ActivationRows& rows, int64_t row, int64_t col) {
  const int64_t index = row * rows.stride + col;
  if (rows.dtype == DType::kF32) return static_cast<const float*>(rows.data)[index];
  KERNEL_CHECK(rows.dtype == DType::kBF16, "activations are f32 or bf16");
  return Bf16ToDouble(static_cast<const uint16_t*>(rows.data)[index]);
}

void WriteElement(const ActivationRows& rows, int64_t row, int64_t col, double value) {
  const int64_t index = row * rows.stride + col;
  if (rows.dtype == DType::kF32) {
    static_cast<float*>(rows.data)[index] = static_cast<float>(value);
    return;
  }
  KERNEL_CHECK(rows.dtype == DType::kBF16, "activations are f32 or bf16");
  static_cast<uint16_t*>(rows.data)[index] = ToBf16(value);
}

}  // namespace polyad::ref
