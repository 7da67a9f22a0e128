#pragma once

// What a head of k or v reads as once it is stored in a format (kernels/api/kv_codes.h): the same
// codes as every other backend, each rounding written out, the reading in double precision.

#include <cstdint>
#include <vector>

#include "kernels/api/kv_codes.h"

namespace polyad::ref {

// One group in integer form, scale and low as the bf16 numbers they are rounded to.
struct CodedGroup {
  float scale = 0;
  float low = 0;
  std::vector<uint8_t> codes;
};

// The groups of a head of fp32 numbers, turned where the format turns them.
std::vector<CodedGroup> EncodeHead(KvFormat format, KvPart part, const std::vector<float>& head);

// The head as attention reads it, turned back, in any format.
std::vector<double> StoredHead(KvFormat format, KvPart part, const std::vector<float>& head);

}  // namespace polyad::ref
