#include "tests/kernels/stored_weight.h"

#include <bit>
#include <cmath>
#include <random>

#include "tests/kernels/op_inputs.h"

namespace polyad::test {
namespace {

// bf16 numbers of 2^-14 or more (or 0) are f16 numbers as well.
uint16_t F16Bits(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const auto exponent = static_cast<int32_t>((bits >> 23) & 255) - 127 + 15;
  if (exponent < 1) return 0;
  return static_cast<uint16_t>(((bits >> 16) & 0x8000u) | (static_cast<uint32_t>(exponent) << 10) |
                               ((bits >> 13) & 0x3ffu));
}

void Put(std::vector<unsigned char>& bytes, const void* data, size_t size) {
  const auto* begin = static_cast<const unsigned char*>(data);
  bytes.insert(bytes.end(), begin, begin + size);
}

void PutPlain(StoredWeight& weight, float value) {
  if (std::abs(value) < 0x1p-14f) value = 0.0f;
  weight.values.push_back(value);
  const uint16_t bf16 = Bf16Bits(value);
  const uint16_t f16 = F16Bits(value);
  if (weight.dtype == DType::kF32) Put(weight.bytes, &value, 4);
  if (weight.dtype == DType::kBF16) Put(weight.bytes, &bf16, 2);
  if (weight.dtype == DType::kF16) Put(weight.bytes, &f16, 2);
}

// A block of 32 with a power-of-two scale near 1 / 64 and integers of the format's whole range.
void PutBlock(StoredWeight& weight, std::mt19937& random) {
  const float scale = std::ldexp(1.0f, -6 + static_cast<int>(random() % 3));
  const float minimum = weight.dtype == DType::kQ4_1 ? -8 * scale : 0.0f;
  const uint16_t scale_bits = F16Bits(scale);
  const uint16_t minimum_bits = F16Bits(minimum);
  Put(weight.bytes, &scale_bits, 2);
  if (weight.dtype == DType::kQ4_1) Put(weight.bytes, &minimum_bits, 2);
  int quants[32];
  for (int& quant : quants) {
    quant = weight.dtype == DType::kQ8_0 ? static_cast<int>(random() % 256) - 128
                                         : static_cast<int>(random() % 16);
    const int offset = weight.dtype == DType::kQ4_0 ? 8 : 0;
    weight.values.push_back(scale * static_cast<float>(quant - offset) + minimum);
  }
  for (int i = 0; weight.dtype == DType::kQ8_0 && i < 32; ++i)
    weight.bytes.push_back(static_cast<unsigned char>(quants[i]));
  for (int i = 0; weight.dtype != DType::kQ8_0 && i < 16; ++i) {
    weight.bytes.push_back(static_cast<unsigned char>(quants[i] | (quants[i + 16] << 4)));
  }
}

// Signed bytes with a power-of-two scale for 32 inputs.
StoredWeight MakeGrouped(int64_t rows, int64_t cols, uint32_t seed) {
  std::mt19937 random(seed);
  auto made = std::make_shared<GroupedRows>(MakeGroupedRows(rows, cols, 32));
  made->zero = 128.0f;
  for (uint8_t& code : made->codes) code = static_cast<uint8_t>(random() % 256);
  for (float& scale : made->scales) scale = std::ldexp(1.0f, -6 + static_cast<int>(random() % 3));
  StoredWeight weight{{}, {}, DType::kGrouped, rows, cols};
  weight.values.resize(static_cast<size_t>(rows * cols));
  for (int64_t row = 0; row < rows; ++row) {
    DequantizeRow(*made, row, weight.values.data() + row * cols);
  }
  weight.grouped = std::move(made);
  return weight;
}

}  // namespace

StoredWeight StoreWeight(DType dtype, int64_t rows, int64_t cols,
                         const std::vector<float>& values) {
  StoredWeight weight{{}, {}, dtype, rows, cols};
  for (float value : values) PutPlain(weight, value);
  return weight;
}

StoredWeight MakeWeight(DType dtype, int64_t rows, int64_t cols, uint32_t seed) {
  if (dtype == DType::kGrouped) return MakeGrouped(rows, cols, seed);
  if (InfoOf(dtype).block_elements == 1) {
    return StoreWeight(dtype, rows, cols, RandomValues(rows * cols, seed));
  }
  StoredWeight weight{{}, {}, dtype, rows, cols};
  std::mt19937 random(seed);
  for (int64_t i = 0; i < rows * cols; i += 32) PutBlock(weight, random);
  return weight;
}

}  // namespace polyad::test
