#pragma once

// Sparse deltas of one call and deltas of few output rows: which blocks do what (sparse.cuh).
// Segments and items are copied to the device by the caller. Pure.

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/cuda/work_items.h"

namespace polyad::cuda {

// Device memory throughout. With columns: compressed sparse rows. Without: whole rows `in` wide,
// for the outputs listed.
struct SparseSegment {
  int32_t row_begin = 0;
  int32_t row_end = 0;
  int32_t in = 0;
  int32_t out = 0;
  int32_t num_outputs = 0;  // that may have values: out, or the rows listed
  int32_t y_column = 0;
  const int32_t* row_begins = nullptr;  // [out + 1]
  const int32_t* columns = nullptr;     // [nnz]
  const int32_t* outputs = nullptr;     // [num_outputs]
  const float* values = nullptr;
  float scale = 1.0f;
  const float* row_scale = nullptr;  // [row_end - row_begin] or null
};

inline constexpr int kSparseThreads = 128;
inline constexpr int kSparseOutputs = 4;  // of an item, a warp each
inline constexpr int kSparseRows = 8;     // of an item

// The items of each launch, in order: segments whose outputs overlap go to different ones.
std::vector<std::vector<WorkItem>> PlanSparse(std::span<const SparseSegment> segments);

}  // namespace polyad::cuda
