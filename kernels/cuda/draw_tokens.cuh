#pragma once

// One token drawn from a row of logits, a block of 256 threads to a draw (DrawArgs): the same token
// that engine/model/sampler.cc draws, because every number is made by the same operations in the
// same order (draw_weights.h). A draw from all ids walks the blocks of kDrawBlock ids to the one in
// which the weight ends, then its ids one by one. Top-k, top-p and min-p need the likeliest in
// order: where more than kDrawHead may be chosen, a weight is searched above which at most so many
// lie, and these are sorted, likeliest first, the lower id first on ties. What needs more of them,
// or cannot be drawn at all, is -1. Weights are computed again in each pass rather than kept.

#include "kernels/api/backend.h"
#include "kernels/api/draw_weights.h"
#include "kernels/cuda/device_rows.h"
#include "kernels/simt/simt.h"

namespace polyad::cuda {

inline constexpr int kDrawThreads = 256;
inline constexpr int kDrawWarps = kDrawThreads / simt::kWarpThreads;
inline constexpr int kDrawHead = 1024;      // a power of two
inline constexpr int kMaxDrawBlocks = 128;  // of a vocabulary
inline constexpr int64_t kMaxDrawCols = int64_t{kMaxDrawBlocks} * kDrawBlock;

// A row, and what its weights are made with.
struct DrawRow {
  const float* logits;
  int64_t cols;
  float largest;
  float scale;

  SIMT_FUNCTION float Weight(int64_t id) const {
    return ExpNegative((logits[id] - largest) * scale);
  }
  // Ordered as the weights, none of which is negative.
  SIMT_FUNCTION uint32_t Key(int64_t id) const { return simt::BitsOfFloat(Weight(id)); }
  SIMT_FUNCTION int64_t blocks() const { return (cols + kDrawBlock - 1) / kDrawBlock; }
};

// The larger; a NaN where either is one.
SIMT_FUNCTION float LargerOrNan(float a, float b) { return a != a || a > b ? a : b; }

SIMT_FUNCTION float LargestOrNan(const float* logits, int64_t cols,
                                 const simt::SharedArray<float>& scratch) {
  float own = logits[0];
  for (int64_t i = simt::ThreadIndex(); i < cols; i += kDrawThreads) {
    own = LargerOrNan(own, logits[i]);
  }
  const int last = SIMT_MUTATE("draw.largest_forgets_a_lane", 1, 2);
  for (int lanes = 16; lanes >= last; lanes /= 2) {
    own = LargerOrNan(own, simt::ShuffleXor(own, lanes));
  }
  if (simt::Lane() == 0) scratch.Store(simt::WarpIndex(), own);
  SIMT_UNLESS("draw.no_barrier_before_largest") simt::BlockBarrier();
  float largest = scratch.Load(0);
  for (int warp = 1; warp < kDrawWarps; ++warp) {
    largest = LargerOrNan(largest, scratch.Load(warp));
  }
  return largest;
}

// sums[b]: the weight of block b.
SIMT_FUNCTION void SumBlocks(const DrawRow& row, const simt::SharedArray<double>& sums) {
  const int lane = simt::ThreadIndex() % kDrawLanes;
  const int first_lane = simt::Lane() - lane;
  for (int64_t first = 0; first < row.blocks(); first += kDrawThreads / kDrawLanes) {
    const int64_t block = first + simt::ThreadIndex() / kDrawLanes;
    const int64_t begin = block * kDrawBlock;
    const int64_t end = row.cols < begin + kDrawBlock ? row.cols : begin + kDrawBlock;
    float own = 0.0f;
    int64_t i = begin;
    for (; i + kDrawLanes <= end; i += kDrawLanes) own += row.Weight(i + lane);
    double sum = 0;
    const int lanes = SIMT_MUTATE("draw.sum_forgets_a_lane", kDrawLanes, kDrawLanes - 1);
    for (int from = 0; from < lanes; ++from) sum += simt::Shuffle(own, first_lane + from);
    if (lane != 0 || block >= row.blocks()) continue;
    for (; i < SIMT_MUTATE("draw.sum_forgets_the_rest", end, i); ++i) sum += row.Weight(i);
    sums.Store(static_cast<int>(block), sum);
  }
}

SIMT_FUNCTION double SumOf(const simt::SharedArray<double>& sums, int64_t blocks) {
  double total = 0;
  for (int b = 0; b < blocks; ++b) total += sums.Load(b);
  return total;
}

// The first of `count` weights at which `target` is used up; or the last that is not zero; or -1.
SIMT_FUNCTION int Walk(const simt::SharedArray<float>& weights, int count, double target) {
  constexpr int kAtOnce = 8;
  int i = 0;
  for (; i + kAtOnce <= count; i += kAtOnce) {
    double left = target;
    SIMT_UNROLL
    for (int j = 0; j < kAtOnce; ++j) left -= weights.Load(i + j);
    if (left < 0) break;
    target = left;
  }
  for (; i < count; ++i) {
    target -= weights.Load(i);
    if (target < 0) return i;
  }
  for (i = count - 1; i >= 0 && !(weights.Load(i) > 0.0f);) --i;
  return i;
}

// For thread 0; -1 for the others.
SIMT_FUNCTION int32_t DrawFromAll(const DrawRow& row, double uniform,
                                  const simt::SharedArray<double>& sums,
                                  const simt::SharedArray<float>& weights) {
  double target = uniform * SumOf(sums, row.blocks());
  int block = 0;
  while (block + 1 < row.blocks() && target >= sums.Load(block)) target -= sums.Load(block++);
  const int64_t begin = int64_t{block} * kDrawBlock;
  const int64_t end = row.cols < begin + kDrawBlock ? row.cols : begin + kDrawBlock;
  const auto count = static_cast<int>(end - begin);
  for (int i = simt::ThreadIndex(); i < count; i += kDrawThreads) {
    weights.Store(i, row.Weight(begin + i));
  }
  SIMT_UNLESS("draw.no_barrier_before_walk") simt::BlockBarrier();
  if (simt::ThreadIndex() != 0) return -1;
  const int found = Walk(weights, count, target);
  return found < 0 ? -1 : static_cast<int32_t>(begin + found);
}

// Of the thread's own ids, those with a key of at least `least`.
SIMT_FUNCTION int CountOwn(const DrawRow& row, uint32_t least) {
  int count = 0;
  for (int64_t i = simt::ThreadIndex(); i < row.cols; i += kDrawThreads) {
    count += row.Key(i) >= least ? 1 : 0;
  }
  return count;
}

SIMT_FUNCTION int CountAll(const DrawRow& row, uint32_t least,
                           const simt::SharedArray<int32_t>& scratch) {
  int count = CountOwn(row, least);
  for (int lanes = 16; lanes > 0; lanes /= 2) count += simt::ShuffleXor(count, lanes);
  if (simt::Lane() == 0) scratch.Store(simt::WarpIndex(), count);
  simt::BlockBarrier();
  int all = 0;
  for (int warp = 0; warp < kDrawWarps; ++warp) all += scratch.Load(warp);
  SIMT_UNLESS("draw.no_barrier_after_count") simt::BlockBarrier();
  return all;
}

// What all threads before this one counted.
SIMT_FUNCTION int CountBefore(int own, const simt::SharedArray<int32_t>& scratch) {
  int up_to = own;
  for (int apart = 1; apart < simt::kWarpThreads; apart *= 2) {
    const int from = simt::Lane() >= apart ? simt::Lane() - apart : simt::Lane();
    const int below = simt::Shuffle(up_to, from);
    if (simt::Lane() >= SIMT_MUTATE("draw.scan", apart, apart + 1)) up_to += below;
  }
  if (simt::Lane() == simt::kWarpThreads - 1) scratch.Store(simt::WarpIndex(), up_to);
  simt::BlockBarrier();
  int before = up_to - own;
  for (int warp = 0; warp < simt::WarpIndex(); ++warp) before += scratch.Load(warp);
  simt::BlockBarrier();
  return before;
}

// The candidates that are sorted.
struct DrawHead {
  int count;
  int all;         // that may be chosen, sorted or not
  uint32_t least;  // their keys are no less
};

// Of the candidates, which have keys of at least `least`, the likeliest: at most kDrawHead, and
// top_k of them or half of kDrawHead where ties allow it.
SIMT_FUNCTION DrawHead FindHead(const DrawRow& row, uint32_t least, int top_k,
                                const simt::SharedArray<int32_t>& scratch) {
  const int all = CountAll(row, least, scratch);
  if (all <= kDrawHead) return {all, all, least};
  const int enough = top_k > 0 && top_k <= kDrawHead ? top_k : kDrawHead / 2;
  uint32_t too_low = least;
  DrawHead head{0, all, simt::BitsOfFloat(1.0f) + 1};
  while (head.least - too_low > 1 && head.count < enough) {
    const uint32_t middle = too_low + (head.least - too_low) / 2;
    const int count = CountAll(row, middle, scratch);
    if (count > SIMT_MUTATE("draw.head_too_long", kDrawHead, kDrawHead + 300)) {
      too_low = middle;
    } else {
      head = {count, all, middle};
    }
  }
  return head;
}

// Key and id of the head's candidates, sorted: the likeliest first, the lower id first on ties.
SIMT_FUNCTION void SortHead(const DrawRow& row, const DrawHead& head,
                            const simt::SharedArray<uint64_t>& sorted,
                            const simt::SharedArray<int32_t>& scratch) {
  int to = CountBefore(CountOwn(row, head.least), scratch);
  for (int64_t i = simt::ThreadIndex(); i < row.cols; i += kDrawThreads) {
    const uint32_t key = row.Key(i);
    if (key < head.least) continue;
    const auto id = static_cast<uint32_t>(i);
    sorted.Store(to++, uint64_t{key} << 32 | SIMT_MUTATE("draw.ties", ~id, id));
  }
  int padded = 1;
  while (padded < head.count) padded *= 2;
  for (int i = head.count + simt::ThreadIndex(); i < padded; i += kDrawThreads) sorted.Store(i, 0);
  SIMT_UNLESS("draw.no_barrier_before_sort") simt::BlockBarrier();
  // Bitonic: runs of `size` become sorted, one falling and one rising (Batcher, 1968).
  for (int size = 2; size <= padded; size *= 2) {
    for (int apart = size / 2; apart > 0; apart /= 2) {
      for (int i = simt::ThreadIndex(); i < padded / 2; i += kDrawThreads) {
        const int low = 2 * i - (i & (apart - 1));
        const uint64_t a = sorted.Load(low);
        const uint64_t b = sorted.Load(low + apart);
        const bool falls = SIMT_MUTATE("draw.sort_falls", (low & size) == 0, (low & apart) == 0);
        if ((a < b) != falls) continue;
        sorted.Store(low, b);
        sorted.Store(low + apart, a);
      }
      SIMT_UNLESS("draw.no_barrier_in_sort") simt::BlockBarrier();
    }
  }
}

SIMT_FUNCTION float WeightAt(const simt::SharedArray<uint64_t>& sorted, int i) {
  return simt::FloatOfBits(static_cast<uint32_t>(sorted.Load(i) >> 32));
}
SIMT_FUNCTION int32_t IdAt(const simt::SharedArray<uint64_t>& sorted, int i) {
  const auto id = static_cast<uint32_t>(sorted.Load(i));
  return static_cast<int32_t>(SIMT_MUTATE("draw.ties", ~id, id));
}
SIMT_FUNCTION double WeightOf(const simt::SharedArray<uint64_t>& sorted, int count) {
  double total = 0;
  for (int i = 0; i < count; ++i) total += WeightAt(sorted, i);
  return total;
}

// How many candidates top-k and top-p leave; 0: it would take more of them to know.
SIMT_FUNCTION int NumKept(const DrawArgs& draw, const DrawHead& head,
                          const simt::SharedArray<uint64_t>& sorted, double all_weight) {
  const int limit = draw.top_k > 0 && draw.top_k < head.all ? draw.top_k : head.all;
  const bool cut = draw.top_k > 0 || draw.min_p > 0.0f;
  if (cut && limit > head.count) return 0;
  if (draw.top_p >= 1.0f) return limit;
  // Top-p counts within what top-k and min-p left.
  const double total =
      SIMT_MUTATE("draw.top_p_of_all", cut, false) ? WeightOf(sorted, limit) : all_weight;
  const double wanted = static_cast<double>(draw.top_p) * total;
  double reached = 0;
  int kept = 0;
  while (kept < limit && reached < wanted) {
    if (kept == head.count) return 0;
    reached += WeightAt(sorted, kept++);
  }
  return kept > 1 ? kept : 1;
}

// By one thread.
SIMT_FUNCTION int32_t DrawFromHead(const DrawArgs& draw, const DrawHead& head,
                                   const simt::SharedArray<uint64_t>& sorted, double all_weight) {
  const int kept = NumKept(draw, head, sorted, all_weight);
  if (kept == 0 || kept > head.count) return -1;
  double target = draw.uniform * WeightOf(sorted, kept);
  int i = 0;
  for (; i < kept - 1; ++i) {
    target -= WeightAt(sorted, i);
    if (target < 0) break;
  }
  return IdAt(sorted, i);
}

SIMT_KERNEL(kDrawThreads)
void DrawTokens(DeviceRows<const float> logits, const DrawArgs* draws, int32_t* tokens) {
  SIMT_SHARED(float, weights, kDrawBlock);
  SIMT_SHARED(uint64_t, sorted, kDrawHead);
  SIMT_SHARED(double, sums, kMaxDrawBlocks);
  SIMT_SHARED(float, largest_of_warps, kDrawWarps);
  SIMT_SHARED(int32_t, counts_of_warps, kDrawWarps);
  const DrawArgs draw = draws[simt::BlockIndex()];
  const float* values = logits.data + draw.row * logits.stride;
  const float largest = LargestOrNan(values, logits.cols, largest_of_warps);
  int32_t token = -1;
  if (largest - largest == 0.0f) {  // finite
    const DrawRow row{values, logits.cols, largest, draw.scale};
    SumBlocks(row, sums);
    SIMT_UNLESS("draw.no_barrier_after_sums") simt::BlockBarrier();
    if (draw.top_k <= 0 && draw.top_p >= 1.0f && draw.min_p <= 0.0f) {
      token = DrawFromAll(row, draw.uniform, sums, weights);
    } else {
      const uint32_t least = draw.min_p > 0.0f ? simt::BitsOfFloat(draw.min_p) : 1;
      const DrawHead head = FindHead(row, least, draw.top_k, counts_of_warps);
      SortHead(row, head, sorted, counts_of_warps);
      if (simt::ThreadIndex() == 0) {
        token = DrawFromHead(draw, head, sorted, SumOf(sums, row.blocks()));
      }
    }
  }
  if (simt::ThreadIndex() == 0) tokens[simt::BlockIndex()] = token;
}

}  // namespace polyad::cuda
