#pragma once

// Brings rows to every rank of a group that each has computed a part of: a rank packs its own
// columns side by side, all send as many, and each unpacks the others'. The numbers themselves
// travel, so every rank has the bits that the owner has. In pieces of rows that fit into memory
// taken once. One rank's, on that rank's thread; all ranks make the same calls.

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/api/backend.h"
#include "kernels/api/communicator.h"
#include "kernels/shard/output_range.h"

namespace polyad {

class RowExchange {
 public:
  static constexpr int64_t kBytes = int64_t{32} << 20;  // of all ranks' parts of a piece
  // Longest row that can be sent, of all ranks' parts together.
  static constexpr int64_t kMaxRowFloats = kBytes / 4 / 2;

  // RESOURCE_EXHAUSTED.
  static absl::StatusOr<std::unique_ptr<RowExchange>> Create(Backend& backend, Communicator& group);

  // Rows of y whose `ranges` are this rank's as computed -> all of them.
  void Gather(ActivationRows y, std::span<const OutputRange> ranges);
  // out[t] = what rank owners[t] makes of row t by make(begin, end, to): `to` is [end - begin,
  // out.cols]. Added to out where `adds`.
  template <typename Make>
  void GatherRowsOf(std::span<const int32_t> owners, FloatRows out, bool adds, const Make& make) {
    const Piece piece = PieceOf(out.rows, out.cols, DType::kF32);
    for (int64_t begin = 0; begin < out.rows; begin += piece.rows) {
      const int64_t end = std::min(out.rows, begin + piece.rows);
      make(begin, end, FloatsOf(Part(piece, group_.rank(), end - begin, out.cols)));
      Send(piece, end - begin);
      Select(piece, owners.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin)),
             out.Slice(begin, end), adds);
    }
  }
  // Rows to work in, at most `rows` of them: [rows or fewer, cols].
  FloatRows Scratch(int64_t rows, int64_t cols) const;

 private:
  // How rows go: so many at a time, of that stride in every rank's part.
  struct Piece {
    int64_t rows = 0;
    int64_t stride = 0;
    DType dtype = DType::kF32;
  };
  RowExchange(Backend& backend, Communicator& group) : backend_(backend), group_(group) {}
  Piece PieceOf(int64_t rows, int64_t width, DType dtype) const;
  // What `rank` sent (or this one is to send) of a piece of so many rows.
  ActivationRows Part(const Piece& piece, int rank, int64_t rows, int64_t cols) const;
  static FloatRows FloatsOf(const ActivationRows& rows) {
    return {static_cast<float*>(rows.data), rows.rows, rows.cols, rows.stride};
  }
  void Send(const Piece& piece, int64_t rows);
  void Select(const Piece& piece, std::span<const int32_t> owners, FloatRows out, bool adds);

  Backend& backend_;
  Communicator& group_;
  std::shared_ptr<void> memory_;   // all ranks' parts, one after the other
  std::shared_ptr<void> scratch_;  // as large
  std::vector<int32_t> rows_;      // reused between calls
};

}  // namespace polyad
