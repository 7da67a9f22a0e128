#pragma once

// Kronecker deltas of one call: which blocks do what (kronecker.cuh). Segments and items are copied
// to the device by the caller. Pure.

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/cuda/work_items.h"

namespace polyad::cuda {

// y += w_t (C kron D) x, C [l, m] with the op's scale in it, D [k, n]: out = l k, in = m n. Device
// memory throughout.
struct KroneckerSegment {
  int32_t row_begin = 0;
  int32_t row_end = 0;
  int32_t l = 0;
  int32_t m = 0;
  int32_t k = 0;
  int32_t n = 0;
  int32_t y_column = 0;
  const float* c = nullptr;             // [l, m]
  const float* d_transposed = nullptr;  // [n, k]
  float scale = 1.0f;
  const float* row_scale = nullptr;  // [row_end - row_begin] or null
};

inline constexpr int kKroneckerThreads = 128;
inline constexpr int kKroneckerTile = 32;  // rows of C, rows of D and columns of C at a time

// The items of each launch, in order; a tile is that of k within that of l.
std::vector<std::vector<WorkItem>> PlanKronecker(std::span<const KroneckerSegment> segments);

}  // namespace polyad::cuda
