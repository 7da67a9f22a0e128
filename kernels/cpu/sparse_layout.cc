#include "kernels/cpu/sparse_layout.h"

#include <algorithm>
#include <utility>

#include "kernels/cpu/vector_bytes.h"

namespace polyad::cpu {
namespace {

constexpr size_t kGroupRows = 16;
constexpr int64_t kNarrowColumns = 65536;

// Without the empty ones; rows of one length stay in order. Lengths are few: they are counted.
std::vector<SparseRow> LongestFirst(const std::vector<SparseRow>& rows) {
  size_t longest = 0;
  for (const SparseRow& row : rows) longest = std::max(longest, row.columns.size());
  std::vector<size_t> place(longest + 2, 0);  // of the next row of each length
  for (const SparseRow& row : rows) ++place[row.columns.size()];
  size_t before = 0;
  for (size_t length = longest; length > 0; --length) {
    before += std::exchange(place[length], before);
  }
  std::vector<SparseRow> sorted(before);
  for (const SparseRow& row : rows) {
    if (!row.columns.empty()) sorted[place[row.columns.size()]++] = row;
  }
  return sorted;
}

}  // namespace

SparseLayout::SparseLayout(std::vector<SparseRow> rows, int64_t in) {
  rows = LongestFirst(rows);
  const bool wide = in > kNarrowColumns;
  size_t stored = 0;
  for (size_t begin = 0; begin < rows.size(); begin += kGroupRows) {
    stored += rows[begin].columns.size() * kGroupRows;
  }
  values_.reserve(stored);
  wide ? wide_columns_.reserve(stored) : columns_.reserve(stored);
  for (size_t begin = 0; begin < rows.size(); begin += kGroupRows) {
    const size_t count = std::min(kGroupRows, rows.size() - begin);
    AppendGroup(std::span(rows).subspan(begin, count), wide);
  }
}

// Past a row's end its last column again with a zero: no other input is touched.
void SparseLayout::AppendGroup(std::span<const SparseRow> rows, bool wide) {
  const size_t entries = rows.front().columns.size();
  const size_t begin = values_.size();
  values_.resize(begin + entries * kGroupRows);
  if (wide) {
    wide_columns_.resize(values_.size());
  } else {
    columns_.resize(values_.size());
  }
  for (size_t lane = 0; lane < kGroupRows; ++lane) {
    const SparseRow& row = rows[std::min(lane, rows.size() - 1)];
    const size_t stored = lane < rows.size() ? row.columns.size() : 0;
    size_t at = begin + lane;
    for (size_t entry = 0; entry < entries; ++entry, at += kGroupRows) {
      const int32_t column = entry < stored ? row.columns[entry] : row.columns.back();
      values_[at] = entry < stored ? row.values[entry] : 0.0f;
      if (wide) {
        wide_columns_[at] = column;
      } else {
        columns_[at] = static_cast<uint16_t>(column);
      }
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
