#pragma once

// A quantised weight matrix [rows = out, cols = in] in the one form that block formats share: a
// code per element, and per row and group of inputs a scale, and where the format has them a zero
// point and a minimum. What a code stands for, in fp32 operations:
//   kInteger: scale * (code - zero) + minimum      kLevels: scale * levels[code]
//   kFloat8:  scale * E4M3(code) (1 sign, 4 exponent, 3 mantissa bits; no infinity)
// GGUF's K-quants, bitsandbytes, GPTQ, AWQ, compressed-tensors and our own files are read into it
// without rounding. It lives while a weight is read and packed. Immutable then; freely shared.

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace polyad {

enum class CodeKind : uint8_t { kInteger, kLevels, kFloat8 };

struct GroupedRows {
  CodeKind kind = CodeKind::kInteger;
  int bits = 8;  // 4 or 8: codes are below 1 << bits; kLevels has 4, kFloat8 8
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t group = 0;           // inputs a group, the last one shorter where cols is no multiple
  int64_t num_groups = 0;      // of a row
  std::vector<uint8_t> codes;  // [rows, cols]
  std::vector<float> scales;   // [rows, num_groups]
  std::vector<float> zeros;    // likewise, or empty: `zero` everywhere
  std::vector<float> minima;   // likewise, or empty: none
  // Where groups_per_super is not 0, scales and minima are [rows, num_supers] and a group's are
  // those times its factor, an exact product (K-quants).
  int64_t groups_per_super = 0;
  std::vector<int8_t> scale_factors;    // [rows, num_groups]
  std::vector<int8_t> minimum_factors;  // likewise where there are minima
  float zero = 0.0f;
  std::array<float, 16> levels = {};
  std::vector<uint16_t> group_of;  // [cols] where groups are not runs of inputs (act-order)

  int64_t GroupOf(int64_t col) const {
    return group_of.empty() ? col / group : group_of[static_cast<size_t>(col)];
  }
  // Of group `at`, counted over all rows.
  float ScaleOf(size_t at) const;
  float MinimumOf(size_t at) const;  // where there are minima
};

// Empty rows of these sizes; `zeros` and `minima` are left empty.
GroupedRows MakeGroupedRows(int64_t rows, int64_t cols, int64_t group);

float Float8ToFloat(uint8_t code);  // E4M3; both NaN codes give NaN

// What the codes of one row stand for: out[0, cols).
void DequantizeRow(const GroupedRows& weight, int64_t row, float* out);

}  // namespace polyad
