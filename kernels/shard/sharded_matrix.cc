#include "kernels/shard/sharded_matrix.h"

#include <utility>

#include "absl/strings/str_format.h"
#include "kernels/api/check.h"
#include "kernels/shard/row_exchange.h"

namespace polyad {
namespace {

absl::Status CheckParts(std::span<const TensorView> parts, int size) {
  if (parts.empty()) return absl::InvalidArgumentError("packing a matrix of no parts");
  int64_t widest = 0;
  for (const TensorView& part : parts) {
    if (part.cols != parts[0].cols) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "stacked parts differ: expected %d columns, got %d", parts[0].cols, part.cols));
    }
    widest += OutputRange{0, part.rows, OutputUnit(part.rows, size)}.Widest(size);
  }
  for (const int64_t width : {widest, parts[0].cols}) {
    if (width * size <= RowExchange::kMaxRowFloats) continue;
    return absl::InvalidArgumentError(
        absl::StrFormat("a matrix split among %d ranks: expected rows of at most %d numbers, got "
                        "%d",
                        size, RowExchange::kMaxRowFloats / size, width));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<PackedMatrix>> PackOutputs(Backend& backend, const TensorView& part,
                                                          Slice own) {
  if (part.dtype != DType::kGrouped) {
    const TensorView view = RowsOfMatrix(part, own);
    return backend.PackMatrix({&view, 1});
  }
  const absl::StatusOr<WeightShard> copy = WeightShard::Of(part, ShardAxis::kOutputs, own);
  if (!copy.ok()) return copy.status();
  const TensorView view = copy->view();
  return backend.PackMatrix({&view, 1});
}

}  // namespace

absl::StatusOr<std::unique_ptr<ShardedMatrix>> ShardedMatrix::Pack(
    std::span<Backend* const> ranks, std::span<const TensorView> parts) {
  const auto size = static_cast<int>(ranks.size());
  const absl::Status status = CheckParts(parts, size);
  if (!status.ok()) return status;
  std::unique_ptr<ShardedMatrix> matrix(new ShardedMatrix());
  matrix->in_ = parts[0].cols;
  for (const TensorView& part : parts) {
    matrix->ranges_.push_back({matrix->out_, part.rows, OutputUnit(part.rows, size)});
    matrix->out_ += part.rows;
  }
  matrix->packed_.resize(ranks.size());
  for (int rank = 0; rank < size; ++rank) {
    for (size_t i = 0; i < parts.size(); ++i) {
      const Slice own = matrix->ranges_[i].Of(rank, size);
      auto& packed = matrix->packed_[static_cast<size_t>(rank)];
      packed.push_back(nullptr);
      if (own.size() == 0) continue;
      absl::StatusOr<std::unique_ptr<PackedMatrix>> outputs =
          PackOutputs(*ranks[static_cast<size_t>(rank)], parts[i], own);
      if (!outputs.ok()) return outputs.status();
      packed.back() = *std::move(outputs);
    }
  }
  return matrix;
}

PrecisionBytes ShardedMatrix::bytes() const {
  PrecisionBytes bytes;
  for (const auto& rank : packed_) {
    for (const auto& part : rank) {
      if (part != nullptr) bytes += part->bytes();
    }
  }
  return bytes;
}

ShardedMatrix::Owner ShardedMatrix::OwnerOf(int64_t row) const {
  KERNEL_CHECK(ranges_.size() == 1 && row >= 0 && row < out_, "a row of a table");
  const auto size = static_cast<int>(packed_.size());
  int rank = 0;
  while (ranges_[0].Of(rank, size).end <= row) ++rank;
  return {rank, static_cast<int32_t>(row - ranges_[0].Of(rank, size).begin)};
}

}  // namespace polyad
