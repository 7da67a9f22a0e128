#pragma once

// middle[t, r] = bf16(inner[r] sum_i A[r, i] x[t, i]);
// y[t, o] += w_t outer[o] sum_r B[o, r] middle[t, r].
//
// One launch serves any mix of adapters, ranks and rows: a block takes one item of the plan.
//
// The order of a sum: of A's, warp w adds up its tiles of 16 inputs w, w + 4, w + 8, ... and the
// four sums are added in order; of B's, tiles of 16 ranks in order. The form for few rows reads
// activations straight into registers (a GEMV: bound by the factors' bytes, which it reads once, 16
// bytes a lane); the form for many brings 64 rows through shared memory with copies one step ahead.
// The exact form is fp32 throughout: lanes add every 32nd input, then halves of the warp.

#include "kernels/cuda/fragments.cuh"
#include "kernels/cuda/low_rank_plan.h"
#include "kernels/cuda/row_weight.cuh"
#include "kernels/simt/simt.h"

namespace polyad::cuda {

struct LowRankArgs {
  const LowRankSegment* segments;
  const WorkItem* items;
  DeviceRows<const simt::Bf16> x;
  DeviceRows<const float> exact_x;  // in its place for the exact form
  simt::Bf16* middle;
  float* exact_middle;
  DeviceRows<float> y;
};

// Rows of shared tiles lie 144 bytes apart, so that the eight rows of a matrix load fall into
// different banks.
inline constexpr int kStagedCols = 64;
inline constexpr int kStagedStride = kStagedCols + 8;
inline constexpr int kStageElements = kManyRows * kStagedStride;

SIMT_FUNCTION int64_t MiddleStride(const LowRankSegment& s) { return (s.rank + 15) / 16 * 16; }

// Adds the warps' sums of [16 ranks][kRows rows] in order and stores them as middle rows. `sums` is
// a lane's part of kRows / 8 accumulator tiles.
template <int kRows>
SIMT_FUNCTION void StoreMiddle(const LowRankArgs& args, const LowRankSegment& s,
                               const WorkItem& item, const float (&sums)[kRows / 8][4]) {
  constexpr int kSums = kShrinkTile * kRows;
  SIMT_SHARED(float, partial, kBlockWarps* kSums);
  const int lane = simt::Lane();
  SIMT_UNROLL
  for (int n = 0; n < kRows / 8; ++n) {
    for (int i = 0; i < 4; ++i) {
      const int rank = lane / 4 + SIMT_MUTATE("shrink.accumulator_row", i / 2, i % 2) * 8;
      const int row = n * 8 + lane % 4 * 2 + i % 2;
      partial.Store(simt::WarpIndex() * kSums + row * kShrinkTile + rank, sums[n][i]);
    }
  }
  SIMT_UNLESS("shrink.no_barrier") simt::BlockBarrier();
  for (int at = simt::ThreadIndex(); at < kSums; at += kBlockThreads) {
    float sum = partial.Load(at);
    const int warps = SIMT_MUTATE("shrink.forgets_a_warp", kBlockWarps, kBlockWarps - 1);
    for (int warp = 1; warp < warps; ++warp) sum += partial.Load(warp * kSums + at);
    const int64_t row = item.row + at / kShrinkTile;
    const int rank = item.tile * kShrinkTile + at % kShrinkTile;
    if (row >= s.row_end) continue;
    if (s.inner != nullptr && rank < s.rank) sum *= s.inner[rank];
    args.middle[s.middle + (row - s.row_begin) * MiddleStride(s) + rank] = simt::ToBf16(sum);
  }
}

// Adds the product of a weight tile and tile `tile` of the staged rows' columns.
SIMT_FUNCTION void MultiplyStaged(float (&sums)[kManyRows / 8][4], const uint32_t (&a)[4],
                                  const simt::SharedArray<simt::Bf16>& staged, int stage,
                                  int tile) {
  SIMT_UNROLL
  for (int n = 0; n < kManyRows / 16; ++n) {
    uint32_t b[4];
    LoadSharedRows(b, staged, kStagedStride, stage * kManyRows + n * 16, tile * kTile);
    simt::MmaBf16(sums[2 * n], a, {b[0], b[1]});
    simt::MmaBf16(sums[2 * n + 1], a, {b[2], b[3]});
  }
}

SIMT_KERNEL(kBlockThreads) void LowRankShrinkFew(LowRankArgs args) {
  const WorkItem item = args.items[simt::BlockIndex()];
  const LowRankSegment s = args.segments[item.segment];
  const int tiles = (s.in + kTile - 1) / kTile;
  float sums[1][4] = {};
  for (int tile = simt::WarpIndex(); tile < tiles; tile += kBlockWarps) {
    uint32_t a[4];
    uint32_t b[2];
    LoadWeights(a, s.a, static_cast<int64_t>(item.tile) * tiles + tile);
    LoadRows(b, args.x.data, args.x.stride, item.row, s.row_end, tile * kTile);
    simt::MmaBf16(sums[0], a, b);
  }
  StoreMiddle<kFewRows>(args, s, item, sums);
}

SIMT_KERNEL(kBlockThreads) void LowRankShrinkMany(LowRankArgs args) {
  SIMT_SHARED(simt::Bf16, staged, 2 * kStageElements);
  const WorkItem item = args.items[simt::BlockIndex()];
  const LowRankSegment s = args.segments[item.segment];
  const int tiles = (s.in + kTile - 1) / kTile;
  const int steps = (tiles + kBlockWarps - 1) / kBlockWarps;
  const auto copy = [&](int step) {
    CopyRows<kManyRows>(staged, step % 2 * kStageElements, kStagedStride, args.x.data,
                        args.x.stride, item.row, s.row_end, step * kStagedCols, args.x.stride);
  };
  float sums[kManyRows / 8][4] = {};
  copy(0);
  for (int step = 0; step < steps; ++step) {
    if (step + 1 < steps) {
      copy(step + 1);
      simt::WaitCopies<1>();
    } else {
      SIMT_UNLESS("shrink_many.no_wait") simt::WaitCopies<0>();
    }
    SIMT_UNLESS("shrink_many.no_barrier_after_wait") simt::BlockBarrier();
    const int tile = step * kBlockWarps + simt::WarpIndex();
    if (tile < tiles) {
      uint32_t a[4];
      LoadWeights(a, s.a, static_cast<int64_t>(item.tile) * tiles + tile);
      const int stage = SIMT_MUTATE("shrink_many.wrong_stage", step % 2, (step + 1) % 2);
      MultiplyStaged(sums, a, staged, stage, simt::WarpIndex());
    }
    SIMT_UNLESS("shrink_many.no_barrier_before_copy") simt::BlockBarrier();
  }
  StoreMiddle<kManyRows>(args, s, item, sums);
}

// Adds a lane's accumulator tile: outputs from `out` on, 8 rows from `row` on.
SIMT_FUNCTION void AddToOutput(const LowRankArgs& args, const LowRankSegment& s, int64_t out,
                               int64_t row, const float (&sums)[4]) {
  const int lane = simt::Lane();
  for (int i = 0; i < 4; ++i) {
    const int64_t o = out + lane / 4 + i / 2 * 8;
    const int64_t t = row + lane % 4 * 2 + SIMT_MUTATE("expand.accumulator_col", i % 2, i / 2);
    const int64_t end = SIMT_MUTATE("expand.row_mask", s.row_end, s.row_end - 1);
    if (o >= s.out || t >= end) continue;
    const float own = s.outer == nullptr ? sums[i] : s.outer[o] * sums[i];
    float* y = args.y.data + t * args.y.stride + s.y_column + o;
    *y += RowWeight(s, t) * own;
  }
}

SIMT_KERNEL(kBlockThreads) void LowRankExpandFew(LowRankArgs args) {
  const WorkItem item = args.items[simt::BlockIndex()];
  const LowRankSegment s = args.segments[item.segment];
  const int64_t out = item.tile * kExpandTile + simt::WarpIndex() * kTile;
  if (out >= s.out) return;
  const int tiles = (s.rank + kTile - 1) / kTile;
  const simt::Bf16* middle = args.middle + s.middle;
  float sums[4] = {};
  for (int tile = 0; tile < tiles; ++tile) {
    uint32_t a[4];
    uint32_t b[2];
    LoadWeights(a, s.b, out / kTile * tiles + tile);
    LoadRows(b, middle, MiddleStride(s), item.row - s.row_begin, s.row_end - s.row_begin,
             tile * kTile);
    simt::MmaBf16(sums, a, b);
  }
  AddToOutput(args, s, out, item.row, sums);
}

SIMT_KERNEL(kBlockThreads, 5) void LowRankExpandMany(LowRankArgs args) {
  SIMT_SHARED(simt::Bf16, staged, 2 * kStageElements);
  const WorkItem item = args.items[simt::BlockIndex()];
  const LowRankSegment s = args.segments[item.segment];
  const int64_t out = item.tile * kExpandTile + simt::WarpIndex() * kTile;
  const int tiles = (s.rank + kTile - 1) / kTile;
  const int steps = (tiles * kTile + kStagedCols - 1) / kStagedCols;
  const auto copy = [&](int step) {
    CopyRows<kManyRows>(staged, step % 2 * kStageElements, kStagedStride, args.middle + s.middle,
                        MiddleStride(s), item.row - s.row_begin, s.row_end - s.row_begin,
                        step * kStagedCols, MiddleStride(s));
  };
  float sums[kManyRows / 8][4] = {};
  copy(0);
  for (int step = 0; step < steps; ++step) {
    if (step + 1 < steps) {
      copy(step + 1);
      SIMT_MUTATE("expand_many.waits_for_too_little", simt::WaitCopies<1>(), simt::WaitCopies<2>());
    } else {
      simt::WaitCopies<0>();
    }
    SIMT_UNLESS("expand_many.no_barrier_after_wait") simt::BlockBarrier();
    for (int in_step = 0; in_step < kStagedCols / kTile; ++in_step) {
      const int tile = step * (kStagedCols / kTile) + in_step;
      if (tile >= tiles || out >= s.out) continue;
      uint32_t a[4];
      LoadWeights(a, s.b, out / kTile * tiles + tile);
      MultiplyStaged(sums, a, staged, step % 2, in_step);
    }
    SIMT_UNLESS("expand_many.no_barrier_before_copy") simt::BlockBarrier();
  }
  SIMT_UNROLL
  for (int n = 0; n < kManyRows / 8; ++n) {
    AddToOutput(args, s, out, item.row + n * 8, sums[n]);
  }
}

// A warp per rank.
SIMT_KERNEL(kBlockThreads) void LowRankShrinkExact(LowRankArgs args) {
  const WorkItem item = args.items[simt::BlockIndex()];
  const LowRankSegment s = args.segments[item.segment];
  const int64_t rank = item.tile * kExactShrinkTile + simt::WarpIndex();
  if (rank >= s.rank) return;
  const float* x = args.exact_x.data + item.row * args.exact_x.stride;
  const float* a = s.exact_a + rank * s.in;
  float sum = 0.0f;
  for (int64_t i = simt::Lane(); i < s.in; i += simt::kWarpThreads) {
    sum = simt::Fma(a[i], x[i], sum);
  }
  const int last = SIMT_MUTATE("shrink_exact.forgets_a_lane", 1, 2);
  for (int lanes = 16; lanes >= last; lanes /= 2) sum += simt::ShuffleXor(sum, lanes);
  if (s.inner != nullptr) sum *= s.inner[rank];
  if (simt::Lane() == 0) {
    args.exact_middle[s.middle + (item.row - s.row_begin) * MiddleStride(s) + rank] = sum;
  }
}

// A thread per output.
SIMT_KERNEL(kBlockThreads) void LowRankExpandExact(LowRankArgs args) {
  const WorkItem item = args.items[simt::BlockIndex()];
  const LowRankSegment s = args.segments[item.segment];
  const int64_t o = item.tile * kExactTile + simt::ThreadIndex();
  if (o >= s.out) return;
  const float* middle = args.exact_middle + s.middle + (item.row - s.row_begin) * MiddleStride(s);
  float sum = 0.0f;
  for (int r = 0; r < s.rank; ++r) sum = simt::Fma(s.exact_b[o * s.rank + r], middle[r], sum);
  if (s.outer != nullptr) sum *= s.outer[o];
  float* y = args.y.data + item.row * args.y.stride + s.y_column + o;
  *y += RowWeight(s, item.row) * sum;
}

// `args.items` are those of the whole plan, in device memory.
inline void LaunchLowRank(const LowRankPlan& plan, LowRankArgs args, simt::Stream stream) {
  const WorkItem* items = args.items;
  for (const LowRankLaunch& launch : plan.launches) {
    args.items = items + launch.first_item;
    const simt::LaunchShape shape{launch.num_items, kBlockThreads};
    switch (launch.step) {
      case LowRankStep::kShrinkFew:
        simt::Launch(shape, stream, LowRankShrinkFew, args);
        break;
      case LowRankStep::kShrinkMany:
        simt::Launch(shape, stream, LowRankShrinkMany, args);
        break;
      case LowRankStep::kExpandFew:
        simt::Launch(shape, stream, LowRankExpandFew, args);
        break;
      case LowRankStep::kExpandMany:
        simt::Launch(shape, stream, LowRankExpandMany, args);
        break;
      case LowRankStep::kShrinkExact:
        simt::Launch(shape, stream, LowRankShrinkExact, args);
        break;
      case LowRankStep::kExpandExact:
        simt::Launch(shape, stream, LowRankExpandExact, args);
        break;
    }
  }
}

}  // namespace polyad::cuda
