#pragma once

// A sparse matrix as the sparse kernels read it (SparseGroups): rows of like length side by side,
// 16 to a group, so that one instruction serves 16 sums and little is padded. Empty rows take no
// place. Immutable once made.

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/api/precision_bytes.h"
#include "kernels/cpu/site_kernels.h"

namespace polyad::cpu {

struct SparseRow {
  int32_t output = 0;
  std::span<const int32_t> columns;
  std::span<const float> values;  // one per column
};

class SparseLayout {
 public:
  // Columns are below `in`.
  SparseLayout(std::vector<SparseRow> rows, int64_t in);

  SparseGroups view() const;
  PrecisionBytes bytes() const;

 private:
  void AppendGroup(std::span<const SparseRow> rows, bool wide);

  std::vector<float> values_;
  std::vector<uint16_t> columns_;
  std::vector<int32_t> wide_columns_;
  std::vector<int64_t> group_begin_ = {0};
  std::vector<int32_t> outputs_;
};

}  // namespace polyad::cpu
