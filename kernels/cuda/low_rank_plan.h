#pragma once

// Low-rank deltas of one call, y[t] += w_t outer * (B (inner * (A x[t]))): which blocks do what.
// Two steps, shrink (A x, into `middle`) and expand (B of it, into y), each in a form for segments
// of few rows and one for many; the exact form is for fp32 activations. Both forms of a step add up
// each number in the same order, so a row's bits do not depend on which one it fell to
// (low_rank.cuh says how). Segments and items are copied to the device by the caller.

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/cuda/work_items.h"
#include "kernels/simt/launch_shape.h"

namespace polyad::simt {
struct Bf16;
}

namespace polyad::cuda {

// Device memory throughout. Factors are fragments (fragment_matrix.h) of bf16, scale already in B,
// or fp32 row by row for the exact form.
struct LowRankSegment {
  int32_t row_begin = 0;
  int32_t row_end = 0;
  int32_t in = 0;
  int32_t rank = 0;
  int32_t out = 0;
  int32_t y_column = 0;
  const simt::Bf16* a = nullptr;
  const simt::Bf16* b = nullptr;
  const float* exact_a = nullptr;    // [rank, in]
  const float* exact_b = nullptr;    // [out, rank]
  const float* inner = nullptr;      // [rank] or null
  const float* outer = nullptr;      // [out] or null
  float scale = 1.0f;                // of the segment
  const float* row_scale = nullptr;  // [row_end - row_begin] or null
  int64_t middle = 0;  // where its middle rows begin, in elements; a row is round_up(rank, 16)
};

inline constexpr int kFewRows = 8;      // rows of an item of the forms for few
inline constexpr int kManyRows = 64;    // and for many
inline constexpr int kShrinkTile = 16;  // ranks of a shrink item
inline constexpr int kExpandTile = 64;  // outputs of an expand item
inline constexpr int kExactTile = 128;  // outputs of an exact expand item; 4 ranks of a shrink one
inline constexpr int kExactShrinkTile = 4;

enum class LowRankStep : uint8_t {
  kShrinkFew,
  kShrinkMany,
  kExpandFew,
  kExpandMany,
  kShrinkExact,
  kExpandExact
};

struct LowRankLaunch {
  LowRankStep step;
  int64_t first_item;
  int64_t num_items;
};

struct LowRankPlan {
  std::vector<LowRankSegment> segments;  // with `middle` set
  std::vector<WorkItem> items;
  std::vector<LowRankLaunch> launches;  // in order
  int64_t middle_elements = 0;
};

LowRankPlan PlanLowRank(std::span<const LowRankSegment> segments, bool exact);

}  // namespace polyad::cuda
