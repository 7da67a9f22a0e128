#pragma once

// GGUF's tensor types: numbers, names, block sizes, and what Read makes of each. Source: gguf 0.19
// constants (GGMLQuantizationType, GGML_QUANT_SIZES).

#include <cstdint>
#include <optional>
#include <string_view>

#include "kernels/api/dtype.h"

namespace polyad {

struct GgufTensorType {
  uint32_t number;
  std::string_view name;
  int64_t block_elements;
  int64_t block_bytes;
  std::optional<DType> dtype;  // read as stored
  bool decodable;              // else read into grouped rows where true, refused where false
};

const GgufTensorType* FindGgufTensorType(uint32_t number);  // null: no such type

}  // namespace polyad
