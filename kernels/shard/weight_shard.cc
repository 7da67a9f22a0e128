#include "kernels/shard/weight_shard.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "absl/strings/str_format.h"
#include "kernels/api/half.h"

namespace polyad {
namespace {

// Rows and columns of a matrix of elements, row by row.
template <typename T>
std::vector<T> PartOf(const std::vector<T>& from, int64_t cols, Slice rows, Slice columns) {
  std::vector<T> part;
  if (from.empty()) return part;
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const auto begin = from.begin() + row * cols;
    part.insert(part.end(), begin + columns.begin, begin + columns.end);
  }
  return part;
}

// `wholes`: of that many inputs each, which a slice of inputs must not cut.
absl::Status CheckCut(const TensorView& weight, Slice inputs, int64_t wholes) {
  const bool ends = inputs.end % wholes == 0 || inputs.end == weight.cols;
  if (inputs.begin % wholes == 0 && ends) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrFormat(
      "a shard of inputs [%d, %d): expected whole groups of %d", inputs.begin, inputs.end, wholes));
}

absl::StatusOr<GroupedRows> PartOfGrouped(const TensorView& weight, Slice rows, Slice inputs) {
  const GroupedRows& from = *weight.grouped;
  Slice groups{0, from.num_groups};
  Slice supers{0, from.num_groups};  // columns of scales
  const int64_t in_super = from.groups_per_super;
  if (in_super != 0) supers.end = (from.num_groups + in_super - 1) / in_super;
  const int64_t num_supers = supers.end;
  if (inputs.size() != from.cols && from.group_of.empty()) {  // act-order keeps all groups
    const int64_t whole = from.group * std::max<int64_t>(1, in_super);
    const absl::Status status = CheckCut(weight, inputs, whole);
    if (!status.ok()) return status;
    groups = {inputs.begin / from.group, (inputs.end + from.group - 1) / from.group};
    supers = {inputs.begin / whole, (inputs.end + whole - 1) / whole};
  }
  GroupedRows part = from;
  part.rows = rows.size();
  part.cols = inputs.size();
  part.num_groups = groups.size();
  part.codes = PartOf(from.codes, from.cols, rows, inputs);
  part.scales = PartOf(from.scales, num_supers, rows, supers);
  part.zeros = PartOf(from.zeros, from.num_groups, rows, groups);
  part.minima = PartOf(from.minima, num_supers, rows, supers);
  part.scale_factors = PartOf(from.scale_factors, from.num_groups, rows, groups);
  part.minimum_factors = PartOf(from.minimum_factors, from.num_groups, rows, groups);
  part.group_of = PartOf(from.group_of, from.cols, {0, 1}, inputs);
  return part;
}

float NumberAt(const TensorView& weight, int64_t at) {
  if (weight.dtype == DType::kF32) return static_cast<const float*>(weight.data)[at];
  const uint16_t bits = static_cast<const uint16_t*>(weight.data)[at];
  if (weight.dtype == DType::kF16) return FromF16(bits);
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

}  // namespace

Slice SliceOf(int64_t count, int64_t unit, int rank, int size) {
  const int64_t units = (count + unit - 1) / unit;
  const int64_t each = units / size;
  const int64_t more = units % size;  // ranks that have one more
  const int64_t begin = rank * each + std::min<int64_t>(rank, more);
  const int64_t end = begin + each + (rank < more ? 1 : 0);
  return {std::min(count, begin * unit), std::min(count, end * unit)};
}

TensorView RowsOfMatrix(const TensorView& matrix, Slice rows) {
  TensorView part = matrix;
  part.data =
      static_cast<const char*>(matrix.data) + rows.begin * RowBytes(matrix.dtype, matrix.cols);
  part.rows = rows.size();
  return part;
}

absl::StatusOr<WeightShard> WeightShard::Of(const TensorView& weight, ShardAxis axis, Slice slice) {
  const bool of_outputs = axis == ShardAxis::kOutputs;
  const Slice rows = of_outputs ? slice : Slice{0, weight.rows};
  const Slice inputs = of_outputs ? Slice{0, weight.cols} : slice;
  WeightShard shard;
  shard.dtype_ = weight.dtype;
  shard.rows_ = rows.size();
  shard.cols_ = inputs.size();
  if (weight.dtype == DType::kGrouped) {
    absl::StatusOr<GroupedRows> part = PartOfGrouped(weight, rows, inputs);
    if (!part.ok()) return part.status();
    shard.grouped_ = std::make_shared<const GroupedRows>(*std::move(part));
    return shard;
  }
  const absl::Status status = CheckCut(weight, inputs, InfoOf(weight.dtype).block_elements);
  if (!status.ok()) return status;
  const int64_t row_bytes = RowBytes(weight.dtype, weight.cols);
  const int64_t part_bytes = RowBytes(weight.dtype, inputs.size());
  shard.bytes_.resize(static_cast<size_t>(rows.size() * part_bytes));
  const char* from = static_cast<const char*>(weight.data) + RowBytes(weight.dtype, inputs.begin);
  for (int64_t row = 0; row < rows.size(); ++row) {
    std::memcpy(shard.bytes_.data() + row * part_bytes, from + (rows.begin + row) * row_bytes,
                static_cast<size_t>(part_bytes));
  }
  return shard;
}

absl::StatusOr<WeightShard> WeightShard::ScaledRows(const TensorView& weight,
                                                    std::span<const float> factors) {
  if (static_cast<int64_t>(factors.size()) != weight.rows) {
    return absl::InvalidArgumentError(
        absl::StrFormat("factors of rows: expected %d, got %d", weight.rows, factors.size()));
  }
  WeightShard shard;
  shard.rows_ = weight.rows;
  shard.cols_ = weight.cols;
  std::vector<float> numbers;
  numbers.reserve(static_cast<size_t>(weight.rows * weight.cols));
  for (int64_t row = 0; row < weight.rows; ++row) {
    for (int64_t col = 0; col < weight.cols; ++col) {
      numbers.push_back(factors[static_cast<size_t>(row)] *
                        NumberAt(weight, row * weight.cols + col));
    }
  }
  shard.bytes_.resize(numbers.size() * sizeof(float));
  std::memcpy(shard.bytes_.data(), numbers.data(), shard.bytes_.size());
  return shard;
}

TensorView WeightShard::view() const {
  const void* data = grouped_ != nullptr ? nullptr : bytes_.data();
  return {data, dtype_, rows_, cols_, grouped_.get()};
}

}  // namespace polyad
