#pragma once

// One-bit deltas (delta_op.h, SignBits) as their kernels take them: signs in the order of matrix
// fragments, and which block does what. A word is one lane's signs of a tile of 16 outputs by 64
// inputs: bit 8 j + i is element i of its fragment of the j-th 16 inputs (fragment_matrix.h), 1 for
// +1. Tiles go along inputs first. Made on the host: words while packing, plans once a step.

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/cuda/work_items.h"

namespace polyad::cuda {

inline constexpr int kSignInputs = 64;   // of a word's tile
inline constexpr int kSignOutputs = 64;  // of an item: four warps' tiles
inline constexpr int kSignRows = 8;
inline constexpr int kExactSignOutputs = 4;  // of an item of the exact form, of one row

// Device memory throughout.
struct SignSegment {
  int32_t row_begin = 0;
  int32_t row_end = 0;
  int32_t in = 0;
  int32_t out = 0;
  int32_t y_column = 0;
  int32_t groups = 1;
  int32_t one_scale = 0;                 // 1: scale is one number, else [out, groups]
  const uint32_t* words = nullptr;       // packed
  const uint32_t* exact_bits = nullptr;  // [out, ceil(in / 32)] as they came
  const float* scales = nullptr;
  float scale = 1.0f;                // of the segment
  const float* row_scale = nullptr;  // [row_end - row_begin] or null
};

std::vector<uint32_t> PackSigns(std::span<const uint32_t> bits, int64_t out, int64_t in);

// Items of each launch, in order: segments that overlap go to later ones.
std::vector<std::vector<WorkItem>> PlanSigns(std::span<const SignSegment> segments, bool exact);

}  // namespace polyad::cuda
