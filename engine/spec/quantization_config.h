#pragma once

// config.json's quantization_config as data: which library quantised the directory's matrices and
// the settings that say what their tensors mean. A method or a key that is not known here, or that
// would change the maths, is refused by name. Sources: transformers 5.19 quantization_config.py;
// bitsandbytes 0.50, gptqmodel 7.7, AutoAWQ's "gemm" layout, compressed-tensors 0.20. Pure
// functions. INVALID_ARGUMENT: malformed. UNIMPLEMENTED: known but not served.

#include <cstdint>
#include <optional>
#include <string>

#include "engine/base/status.h"
#include "engine/io/json.h"

namespace polyad {

enum class QuantizationMethod : uint8_t { kBitsAndBytes, kGptq, kAwq, kCompressedTensors, kPolyad };

struct QuantizationConfig {
  QuantizationMethod method = QuantizationMethod::kPolyad;
  int bits = 4;
  int64_t group_size = 0;  // inputs; -1: a whole row; 0: the format has none
  bool symmetric = true;
  bool zeros_less_one = false;  // GPTQ's first layout stores zero points less one
  bool float_codes = false;     // E4M3
  bool packed = false;          // several codes in an int32 (compressed-tensors)
};

// nullopt where config.json has no quantization_config.
StatusOr<std::optional<QuantizationConfig>> ReadQuantizationConfig(const JsonFields& config);

}  // namespace polyad
