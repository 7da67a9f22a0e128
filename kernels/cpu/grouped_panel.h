#pragma once

// A column panel of grouped rows (kernels/api/grouped_rows.h) as the CPU backend keeps it, and the
// decoder that turns it into a bf16 panel (gemm_kernels.h) on its way into a product. Plain data.
//
// Layout, 32 columns, zero-padded. Groups: per group the planes scale, zero, minimum (those there
// are), each one number a column: f16 or fp32; or, where factored, signed bytes to be multiplied by
// the f16 planes of the group's super-group. Codes: per block of 32 inputs and tile of 16 columns,
// 32-bit words [inputs / 8 or inputs / 4][16 columns], the first input in the lowest bits.

#include <cstdint>

#include "kernels/api/grouped_rows.h"

namespace polyad::cpu {

struct GroupedPanel {
  CodeKind kind = CodeKind::kInteger;
  int bits = 8;
  int64_t depth = 0;    // a multiple of 32
  int64_t columns = 0;  // that exist, <= 32
  const char* groups = nullptr;
  const uint16_t* supers = nullptr;  // null: not factored
  const uint32_t* codes = nullptr;
  const uint16_t* group_of = nullptr;  // [depth], or null: runs of inputs
  int64_t halves_per_group = 1;        // of 16 inputs
  int64_t planes = 1;
  int64_t groups_per_super = 1;
  bool f16 = false;  // planes of groups that are not factored
  bool has_zero = false;
  bool has_minimum = false;
  float zero = 0.0f;              // where has_zero is false
  const float* levels = nullptr;  // [16]
};

// Writes the panel as bf16, rounded to nearest, in the layout of `columns` columns; up to 64 bytes
// past its end may be written too.
using DecodeGrouped = void (*)(const GroupedPanel& panel, uint16_t* out);

}  // namespace polyad::cpu
