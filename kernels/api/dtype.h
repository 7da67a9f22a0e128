#pragma once

// Element and block types of stored tensors, with their sizes. A block type packs `block_elements`
// consecutive elements of a row into `block_bytes`. Layouts of Q8_0, Q4_0, Q4_1: the GGUF format
// (ggml documentation, "quantization types"): Q8_0 {f16 d; i8 q[32]}: x = d*q.  Q4_0 {f16 d; u8
// q[16]}: x = d*(nibble-8).  Q4_1 {f16 d, f16 m; u8 q[16]}: x = d*nibble+m; byte i of a 4-bit block
// holds element i in its low nibble and element i+16 in its high nibble.

#include <cstdint>
#include <string_view>

namespace polyad {

enum class DType : uint8_t {
  kF32,
  kF16,
  kBF16,
  kQ8_0,
  kQ4_0,
  kQ4_1,
  kI8,
  kU8,
  kI16,
  kI32,
  kI64,
  kF64,
  kBool,
  kF8E4M3,
  kGrouped  // a quantised matrix in memory (grouped_rows.h): no file stores it, it has no row bytes
};

struct DTypeInfo {
  std::string_view name;  // as error messages and reports print it
  int64_t block_elements;
  int64_t block_bytes;
};

constexpr DTypeInfo InfoOf(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return {"f32", 1, 4};
    case DType::kF16:
      return {"f16", 1, 2};
    case DType::kBF16:
      return {"bf16", 1, 2};
    case DType::kQ8_0:
      return {"q8_0", 32, 34};
    case DType::kQ4_0:
      return {"q4_0", 32, 18};
    case DType::kQ4_1:
      return {"q4_1", 32, 20};
    case DType::kI8:
      return {"i8", 1, 1};
    case DType::kU8:
      return {"u8", 1, 1};
    case DType::kI16:
      return {"i16", 1, 2};
    case DType::kI32:
      return {"i32", 1, 4};
    case DType::kI64:
      return {"i64", 1, 8};
    case DType::kF64:
      return {"f64", 1, 8};
    case DType::kBool:
      return {"bool", 1, 1};
    case DType::kF8E4M3:
      return {"f8_e4m3", 1, 1};
    case DType::kGrouped:
      return {"grouped", 1, 0};
  }
  return {"?", 1, 1};
}

// Bytes of one row of `elements`, which must be a multiple of the block.
constexpr int64_t RowBytes(DType dtype, int64_t elements) {
  const DTypeInfo info = InfoOf(dtype);
  return elements / info.block_elements * info.block_bytes;
}

}  // namespace polyad
