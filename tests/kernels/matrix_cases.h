#pragma once

// Op cases that read packed weights: embedding rows, products, low-rank deltas.

#include "tests/kernels/op_cases.h"

namespace polyad::test {

struct GemmShape {
  DType dtype = DType::kF32;
  int64_t rows = 1;
  int64_t in = 1;
  int64_t out = 1;
  bool bias = false;
  bool accumulate = false;
};

OpCase GemmCase(const GemmShape& shape);
// `shape` without bias or sink, on rows of a larger matrix that begin at first_row.
OpCase ProductOfRowsCase(const GemmShape& shape, int64_t first_row);

// Adds `rows` table rows to others and embeds them.
OpCase EmbedCase(DType dtype, int64_t rows, int64_t cols);

// One segment of two rows per rank, one adapter each.
OpCase LowRankCase(DType dtype, std::vector<int64_t> ranks, int64_t in, int64_t out);

}  // namespace polyad::test
