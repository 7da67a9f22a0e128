#include "engine/spec/weight_layout.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "engine/io/quote.h"

namespace polyad {

namespace {

constexpr int64_t kTile = 32;  // a tile of a transpose stays in the first-level cache

template <typename Element>
void TransposeInto(const void* from, int64_t rows, int64_t cols, void* to) {
  const auto* source = static_cast<const Element*>(from);
  auto* target = static_cast<Element*>(to);
  for (int64_t row_begin = 0; row_begin < rows; row_begin += kTile) {
    const int64_t row_end = std::min(row_begin + kTile, rows);
    for (int64_t col_begin = 0; col_begin < cols; col_begin += kTile) {
      const int64_t col_end = std::min(col_begin + kTile, cols);
      for (int64_t row = row_begin; row < row_end; ++row) {
        for (int64_t col = col_begin; col < col_end; ++col) {
          target[col * rows + row] = source[row * cols + col];
        }
      }
    }
  }
}

StatusOr<OwnedTensor> Transpose(const OwnedTensor& stored, const std::string& name) {
  const TensorView view = stored.view();
  const DTypeInfo type = InfoOf(stored.dtype);
  if (type.block_elements != 1 || (type.block_bytes != 2 && type.block_bytes != 4)) {
    return Unimplemented("tensor %s: a transposed %s matrix is not supported", Quote(name),
                         type.name);
  }
  OwnedTensor result;
  result.dtype = stored.dtype;
  result.shape = {view.cols, view.rows};
  POLYAD_ASSIGN_OR_RETURN(result.bytes, OwnedBytes::Allocate(stored.bytes.size()));
  if (type.block_bytes == 2) {
    TransposeInto<uint16_t>(view.data, view.rows, view.cols, result.bytes.data());
  } else {
    TransposeInto<uint32_t>(view.data, view.rows, view.cols, result.bytes.data());
  }
  return result;
}

// Where row `row` of interleaved heads belongs: stored row 2 i + b of a head is its row b * half +
// i.
int64_t SplitRow(int64_t row, int64_t head_rows) {
  const int64_t in_head = row % head_rows;
  return row - in_head + (in_head % 2) * (head_rows / 2) + in_head / 2;
}

template <typename Element>
std::vector<Element> SplitRows(const std::vector<Element>& stored, int64_t rows,
                               int64_t head_rows) {
  std::vector<Element> result(stored.size());
  const auto width = static_cast<int64_t>(stored.size()) / rows;
  for (int64_t row = 0; row < rows; ++row) {
    std::copy_n(stored.begin() + row * width, width,
                result.begin() + SplitRow(row, head_rows) * width);
  }
  return result;
}

OwnedTensor SplitGroupedRows(const OwnedTensor& stored, int64_t head_rows) {
  auto grouped = std::make_shared<GroupedRows>(*stored.grouped);
  grouped->codes = SplitRows(grouped->codes, grouped->rows, head_rows);
  grouped->scales = SplitRows(grouped->scales, grouped->rows, head_rows);
  grouped->zeros = SplitRows(grouped->zeros, grouped->rows, head_rows);
  grouped->minima = SplitRows(grouped->minima, grouped->rows, head_rows);
  grouped->scale_factors = SplitRows(grouped->scale_factors, grouped->rows, head_rows);
  grouped->minimum_factors = SplitRows(grouped->minimum_factors, grouped->rows, head_rows);
  OwnedTensor result;
  result.dtype = stored.dtype;
  result.shape = stored.shape;
  result.grouped = std::move(grouped);
  return result;
}

// Undoes the interleave. Vectors (biases) are matrices with one column.
StatusOr<OwnedTensor> SplitRotaryRows(const OwnedTensor& stored, int64_t num_heads) {
  const bool is_vector = stored.shape.size() == 1;
  const int64_t rows = stored.shape[0];
  const int64_t head_rows = rows / num_heads;
  if (stored.dtype == DType::kGrouped) return SplitGroupedRows(stored, head_rows);
  const int64_t row_bytes =
      is_vector ? InfoOf(stored.dtype).block_bytes : RowBytes(stored.dtype, stored.shape[1]);
  OwnedTensor result;
  result.dtype = stored.dtype;
  result.shape = stored.shape;
  POLYAD_ASSIGN_OR_RETURN(result.bytes, OwnedBytes::Allocate(stored.bytes.size()));
  for (int64_t row = 0; row < rows; ++row) {
    std::memcpy(result.bytes.data() + SplitRow(row, head_rows) * row_bytes,
                stored.bytes.data() + row * row_bytes, static_cast<size_t>(row_bytes));
  }
  return result;
}

}  // namespace

StatusOr<OwnedTensor> ToLogicalLayout(OwnedTensor stored, const WeightEntry& entry) {
  switch (entry.layout) {
    case WeightLayout::kAsStored:
      return stored;
    case WeightLayout::kTransposed:
      return Transpose(stored, entry.tensor_name);
    case WeightLayout::kInterleavedRows:
      return SplitRotaryRows(stored, entry.rotary_heads);
  }
  return stored;
}

}  // namespace polyad
