#include "kernels/shard/row_exchange.h"

#include <algorithm>
#include <utility>

#include "kernels/api/check.h"
#include "kernels/api/round_up.h"

namespace polyad {
namespace {

constexpr int64_t kStrideElements = 8;  // rows begin at 16 bytes in either dtype

ActivationRows ColumnsOf(const ActivationRows& rows, int64_t begin, int64_t cols) {
  char* data = static_cast<char*>(rows.data) + begin * InfoOf(rows.dtype).block_bytes;
  return {data, rows.dtype, rows.rows, cols, rows.stride};
}

}  // namespace

absl::StatusOr<std::unique_ptr<RowExchange>> RowExchange::Create(Backend& backend,
                                                                 Communicator& group) {
  std::unique_ptr<RowExchange> exchange(new RowExchange(backend, group));
  for (std::shared_ptr<void>* memory : {&exchange->memory_, &exchange->scratch_}) {
    absl::StatusOr<std::shared_ptr<void>> got = backend.Allocate(kBytes);
    if (!got.ok()) return got.status();
    *memory = *std::move(got);
  }
  return exchange;
}

RowExchange::Piece RowExchange::PieceOf(int64_t rows, int64_t width, DType dtype) const {
  Piece piece{rows, RoundUp(width, kStrideElements), dtype};
  const int64_t row_bytes = group_.size() * piece.stride * InfoOf(dtype).block_bytes;
  KERNEL_CHECK(row_bytes <= kBytes, "a row wider than ranks exchange");
  piece.rows = std::max<int64_t>(1, std::min(rows, kBytes / std::max<int64_t>(1, row_bytes)));
  return piece;
}

ActivationRows RowExchange::Part(const Piece& piece, int rank, int64_t rows, int64_t cols) const {
  const int64_t part = rows * piece.stride * InfoOf(piece.dtype).block_bytes;
  return {static_cast<char*>(memory_.get()) + rank * part, piece.dtype, rows, cols, piece.stride};
}

void RowExchange::Send(const Piece& piece, int64_t rows) {
  const auto count = static_cast<size_t>(rows * piece.stride * InfoOf(piece.dtype).block_bytes / 4);
  auto* all = static_cast<float*>(memory_.get());
  group_.AllGather({all + static_cast<size_t>(group_.rank()) * count, count},
                   {all, static_cast<size_t>(group_.size()) * count});
}

void RowExchange::Gather(ActivationRows y, std::span<const OutputRange> ranges) {
  const int size = group_.size();
  int64_t width = 0;
  for (const OutputRange& range : ranges) width += range.Widest(size);
  if (width == 0 || size == 1) return;
  const Piece piece = PieceOf(y.rows, width, y.dtype);
  for (int64_t begin = 0; begin < y.rows; begin += piece.rows) {
    const ActivationRows rows = y.Slice(begin, std::min(y.rows, begin + piece.rows));
    // each(range's columns of the rows, the same in the rank's part)
    const auto for_each_range = [&](int rank, const auto& each) {
      const ActivationRows part = Part(piece, rank, rows.rows, width);
      int64_t at = 0;
      for (const OutputRange& range : ranges) {
        const Slice own = range.Of(rank, size);
        if (own.size() == 0) continue;
        each(ColumnsOf(rows, range.column + own.begin, own.size()),
             ColumnsOf(part, at, own.size()));
        at += own.size();
      }
    };
    for_each_range(group_.rank(), [&](const ActivationRows& in_rows, const ActivationRows& packed) {
      backend_.Copy(in_rows, packed);
    });
    Send(piece, rows.rows);
    for (int rank = 0; rank < size; ++rank) {
      if (rank == group_.rank()) continue;
      for_each_range(rank, [&](const ActivationRows& in_rows, const ActivationRows& packed) {
        backend_.Copy(packed, in_rows);
      });
    }
  }
}

void RowExchange::Select(const Piece& piece, std::span<const int32_t> owners, FloatRows out,
                         bool adds) {
  rows_.clear();
  for (const int32_t owner : owners) {
    rows_.push_back(static_cast<int32_t>(owner * out.rows + static_cast<int64_t>(rows_.size())));
  }
  FloatRows all = FloatsOf(Part(piece, 0, out.rows, out.cols));
  all.rows = group_.size() * out.rows;
  if (!adds) return backend_.GatherRows(all, rows_, out);
  const FloatRows chosen = Scratch(out.rows, out.cols);
  KERNEL_CHECK(chosen.rows == out.rows, "rows of a piece fit into the scratch");
  backend_.GatherRows(all, rows_, chosen);
  backend_.Accumulate(chosen, out);
}

FloatRows RowExchange::Scratch(int64_t rows, int64_t cols) const {
  const int64_t stride = RoundUp(cols, kStrideElements);
  KERNEL_CHECK(stride * 4 <= kBytes, "a row wider than ranks exchange");
  const int64_t fit = std::min(rows, kBytes / 4 / stride);
  return {static_cast<float*>(scratch_.get()), fit, cols, stride};
}

}  // namespace polyad
