#pragma once

// How warps of tensor-core kernels read their operands: weights as fragments (fragment_matrix.h)
// are A, rows of bf16 activations are the columns of B. So the sum of an output for a row never
// meets another row, and rows missing from a tile are zeros. Shapes in elements.

#include "kernels/cuda/device_rows.h"
#include "kernels/cuda/fragment_matrix.h"
#include "kernels/simt/simt.h"

namespace polyad::cuda {

inline constexpr int kBlockThreads = 128;
inline constexpr int kBlockWarps = kBlockThreads / simt::kWarpThreads;

// Tile `tile` of packed weights.
SIMT_FUNCTION void LoadWeights(uint32_t (&a)[4], const simt::Bf16* packed, int64_t tile) {
  const simt::Words4 words =
      simt::Load16(packed + tile * kTileElements + simt::Lane() * kFragmentElements);
  for (int i = 0; i < 4; ++i) a[i] = words.word[i];
}

// Columns [first_col, first_col + 16) of the 8 rows from `row` on, straight from global memory:
// lane 4 g + t has columns 2 t, 2 t + 1 and those 8 further, of row g. Rows from row_end on are 0.
SIMT_FUNCTION void LoadRows(uint32_t (&b)[2], const simt::Bf16* rows, int64_t stride, int64_t row,
                            int64_t row_end, int64_t first_col) {
  const int64_t own = row + simt::Lane() / 4;
  const bool inside = own < row_end;
  const int64_t col = first_col + simt::Lane() % 4 * 2;
  const auto* words = reinterpret_cast<const uint32_t*>(rows + own * stride + col);
  b[0] = inside ? words[0] : 0;
  b[1] = inside ? words[SIMT_MUTATE("load_rows.second_half", 4, 3)] : 0;
}

// The same from rows in shared memory, `stride` apart, for the 16 rows from `row` on: b[0] and b[1]
// for the first 8, b[2] and b[3] for the others.
SIMT_FUNCTION void LoadSharedRows(uint32_t (&b)[4], const simt::SharedArray<simt::Bf16>& tile,
                                  int stride, int row, int first_col) {
  const int lane = simt::Lane();
  const int own = row + lane % 8 + lane / 16 * 8;
  const int col = first_col + SIMT_MUTATE("shared_rows.half", lane / 8 % 2, lane / 16) * 8;
  simt::LoadMatrix4(b, tile, own * stride + col);
}

// Begins to copy columns [first_col, first_col + 64) of kRows rows into a tile of that stride, by
// all threads of the block; zeros where rows or columns end. One group of copies.
template <int kRows>
SIMT_FUNCTION void CopyRows(const simt::SharedArray<simt::Bf16>& tile, int tile_begin, int stride,
                            const simt::Bf16* rows, int64_t row_stride, int64_t row,
                            int64_t row_end, int64_t first_col, int64_t col_end) {
  for (int i = simt::ThreadIndex(); i < kRows * 8; i += kBlockThreads) {
    const int64_t own = row + i / 8;
    const int64_t col = first_col + i % 8 * 8;
    const bool inside = own < row_end && col < col_end;
    const simt::Bf16* from = inside ? rows + own * row_stride + col : rows;
    simt::CopyAsync16(tile, tile_begin + i / 8 * stride + i % 8 * 8, from, inside ? 16 : 0);
  }
  simt::CommitCopies();
}

}  // namespace polyad::cuda
