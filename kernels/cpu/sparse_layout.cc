#include "kernels/cpu/sparse_layout.h"

#include <algorithm>

#include "kernels/cpu/vector_bytes.h"

namespace polyad::cpu {
namespace {

constexpr int64_t kGroupRows = 16;
constexpr int64_t kNarrowColumns = 65536;

}  // namespace

SparseLayout::SparseLayout(std::vector<SparseRow> rows, int64_t in) {
  std::erase_if(rows, [](const SparseRow& row) { return row.columns.empty(); });
  std::stable_sort(rows.begin(), rows.end(), [](const SparseRow& a, const SparseRow& b) {
    return a.columns.size() > b.columns.size();
  });
  const bool wide = in > kNarrowColumns;
  size_t stored = 0;
  for (size_t begin = 0; begin < rows.size(); begin += kGroupRows) {
    stored += rows[begin].columns.size() * kGroupRows;
  }
  values_.reserve(stored);
  wide ? wide_columns_.reserve(stored) : columns_.reserve(stored);
  for (size_t begin = 0; begin < rows.size(); begin += kGroupRows) {
    const size_t count = std::min<size_t>(kGroupRows, rows.size() - begin);
    AppendGroup(std::span(rows).subspan(begin, count), wide);
  }
}

// Past a row's end its last column again with a zero: no other input is touched.
void SparseLayout::AppendGroup(std::span<const SparseRow> rows, bool wide) {
  const size_t entries = rows.front().columns.size();
  for (size_t entry = 0; entry < entries; ++entry) {
    for (size_t lane = 0; lane < kGroupRows; ++lane) {
      const SparseRow& row = rows[std::min(lane, rows.size() - 1)];
      const bool stored = lane < rows.size() && entry < row.columns.size();
      const int32_t column = stored ? row.columns[entry] : row.columns.back();
      values_.push_back(stored ? row.values[entry] : 0.0f);
      if (wide) wide_columns_.push_back(column);
      if (!wide) columns_.push_back(static_cast<uint16_t>(column));
    }
  }
  group_begin_.push_back(group_begin_.back() + static_cast<int64_t>(entries));
  for (const SparseRow& row : rows) outputs_.push_back(row.output);
}

SparseGroups SparseLayout::view() const {
  SparseGroups groups;
  groups.values = values_.data();
  groups.columns = columns_.data();
  groups.wide_columns = wide_columns_.empty() ? nullptr : wide_columns_.data();
  groups.group_begin = group_begin_.data();
  groups.outputs = outputs_.data();
  groups.groups = static_cast<int64_t>(group_begin_.size()) - 1;
  groups.num_outputs = static_cast<int64_t>(outputs_.size());
  return groups;
}

PrecisionBytes SparseLayout::bytes() const {
  return BytesOf(values_, columns_, wide_columns_, group_begin_, outputs_);
}

}  // namespace polyad::cpu
