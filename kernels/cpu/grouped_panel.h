#pragma once

// A column panel of grouped rows (kernels/api/grouped_rows.h) as the CPU backend keeps it, and the
// decoders that turn it into a bf16 panel (gemm_kernels.h) on its way into a product, or its groups
// into fp32 beside the codes. Plain data.
//
// Layout, 32 columns, zero-padded. Groups: per group the planes scale, zero, minimum (those there
// are), each one number a column: f16 or fp32; or, where factored, signed bytes to be multiplied by
// the f16 planes of the group's super-group. Codes: per block of 32 inputs and tile of 16 columns,
// 32-bit words [inputs / 8 or inputs / 4][16 columns]. A byte of a word holds one input of four in
// a row; of 4-bit codes the low halves hold the first four of eight inputs, the high halves the
// others.

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
  int64_t num_groups = 0;
  int64_t halves_per_group = 1;  // of 16 inputs
  int64_t planes = 1;
  int64_t groups_per_super = 1;
  bool f16 = false;  // planes of groups that are not factored
  bool has_zero = false;
  bool has_minimum = false;
  float zero = 0.0f;              // where has_zero is false
  const float* levels = nullptr;  // [16]
};

// The word that holds input k of a column of a panel, and the code's place in it.
struct CodePlace {
  int64_t word;
  int shift;
};

static inline CodePlace PlaceOfCode(int bits, int64_t k, int64_t column) {
  const int64_t per_word = 32 / bits;
  const int64_t tile = k / 32 * 2 + column / 16;
  const int64_t word = (tile * 32 + k % 32) / per_word;
  const int64_t in_word = k % per_word;
  return {word * 16 + column % 16, static_cast<int>(in_word % 4 * 8 + in_word / 4 * 4)};
}

// Writes the panel as bf16, rounded to nearest, in the layout of `columns` columns; up to 64 bytes
// past its end may be written too.
using DecodeGrouped = void (*)(const GroupedPanel& panel, uint16_t* out);

// Of a panel of integers: scales [num_groups][32], and where `minima` is not null likewise what is
// added to scale (code - offset): its planes' minimum + scale (offset - zero).
using DecodeScaling = void (*)(const GroupedPanel& panel, float offset, float* scales,
                               float* minima);

}  // namespace polyad::cpu
