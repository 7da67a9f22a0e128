#include "engine/io/tensor_source.h"

#include <cstring>

#include "absl/strings/str_join.h"
#include "engine/base/check.h"
#include "engine/io/checked_math.h"
#include "engine/io/float_bits.h"

namespace polyad {

namespace {

template <typename Element>
Element Load(const uint8_t* bytes, int64_t index) {
  Element element;
  std::memcpy(&element, bytes + index * static_cast<int64_t>(sizeof(Element)), sizeof(Element));
  return element;
}

}  // namespace

TensorView OwnedTensor::view() const {
  TensorView view;
  view.data = bytes.data();
  view.dtype = dtype;
  view.grouped = grouped.get();
  view.cols = shape.empty() ? 1 : shape.back();
  view.rows = 1;
  for (size_t i = 0; i + 1 < shape.size(); ++i) view.rows *= shape[i];
  return view;
}

std::optional<int64_t> NumElements(const std::vector<int64_t>& shape) {
  // A zero anywhere makes the tensor empty, but must not hide an overflow of the rest.
  int64_t product = 1;
  bool empty = false;
  for (const int64_t dimension : shape) {
    if (dimension == 0) {
      empty = true;
      continue;
    }
    const std::optional<int64_t> next = CheckedMul(product, dimension);
    if (!next.has_value()) return std::nullopt;
    product = *next;
  }
  return empty ? 0 : product;
}

std::string ShapeToString(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

namespace {

int Nibble(const uint8_t* quants, int64_t i) {
  return i < 16 ? quants[i] & 15 : quants[i - 16] >> 4;
}

// Element i of a block of 32 (kernels/api/dtype.h says how they lie).
float InBlock(DType dtype, const uint8_t* block, int64_t i) {
  const float scale = HalfToFloat(Load<uint16_t>(block, 0));
  if (dtype == DType::kQ8_0) return scale * static_cast<float>(static_cast<int8_t>(block[2 + i]));
  if (dtype == DType::kQ4_0) return scale * static_cast<float>(Nibble(block + 2, i) - 8);
  return scale * static_cast<float>(Nibble(block + 4, i)) +
         HalfToFloat(Load<uint16_t>(block + 2, 0));
}

// `count` elements from the first; false for a type that is none of numbers.
bool Decode(DType dtype, const uint8_t* bytes, int64_t count, float* out) {
  if (dtype == DType::kF32) {
    if (count > 0) std::memcpy(out, bytes, static_cast<size_t>(count) * sizeof(float));
    return true;
  }
  if (dtype == DType::kBF16) {  // whole models come this way: no switch per element
    for (int64_t i = 0; i < count; ++i) out[i] = BFloat16ToFloat(Load<uint16_t>(bytes, i));
    return true;
  }
  for (int64_t i = 0; i < count; ++i) {
    switch (dtype) {
      case DType::kF64:
        out[i] = static_cast<float>(Load<double>(bytes, i));
        continue;
      case DType::kF16:
        out[i] = HalfToFloat(Load<uint16_t>(bytes, i));
        continue;
      case DType::kQ8_0:
      case DType::kQ4_0:
      case DType::kQ4_1:
        out[i] = InBlock(dtype, bytes + i / 32 * InfoOf(dtype).block_bytes, i % 32);
        continue;
      case DType::kF32:
      case DType::kBF16:
      case DType::kI8:
      case DType::kU8:
      case DType::kI16:
      case DType::kI32:
      case DType::kI64:
      case DType::kBool:
      case DType::kF8E4M3:
      case DType::kGrouped:
        return false;
    }
  }
  return true;
}

}  // namespace

StatusOr<std::vector<float>> ToFloats(const OwnedTensor& tensor) {
  const std::optional<int64_t> count = NumElements(tensor.shape);
  const int64_t num_elements = count.value_or(0);
  std::vector<float> floats(static_cast<size_t>(num_elements));
  if (tensor.dtype == DType::kGrouped) {
    const GroupedRows& grouped = *tensor.grouped;
    for (int64_t row = 0; row < grouped.rows; ++row) {
      DequantizeRow(grouped, row, floats.data() + row * grouped.cols);
    }
    return floats;
  }
  if (Decode(tensor.dtype, tensor.bytes.data(), num_elements, floats.data())) return floats;
  return Unimplemented("expected a float tensor, got %s", InfoOf(tensor.dtype).name);
}

void RowToFloats(const OwnedTensor& tensor, int64_t row, float* out) {
  if (tensor.dtype == DType::kGrouped) return DequantizeRow(*tensor.grouped, row, out);
  const int64_t cols = tensor.shape.empty() ? 1 : tensor.shape.back();
  const uint8_t* bytes = tensor.bytes.data() + row * RowBytes(tensor.dtype, cols);
  POLYAD_CHECK(Decode(tensor.dtype, bytes, cols, out), "rows of numbers");
}

}  // namespace polyad
