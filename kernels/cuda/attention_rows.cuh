#pragma once

// What the forms of attention share (paged_attention.cuh, exact_attention.cuh): what a row sees and
// where its results go, the running state of a softmax and how two of them are combined.

#include <cmath>

#include "kernels/cuda/attention_plan.h"
#include "kernels/cuda/fragments.cuh"
#include "kernels/cuda/kv_codes.cuh"
#include "kernels/cuda/kv_pages.cuh"
#include "kernels/simt/simt.h"

namespace polyad::cuda {

inline constexpr int kMaxHeadDim = 256;
inline constexpr int kPage = static_cast<int>(kBlockTokens);
static_assert(kPage == kTile && kAttentionSpan % simt::kWarpThreads == 0);

template <typename T>
struct AttentionKernelArgs {
  const DeviceSequence* sequences;
  const AttentionItem* items;
  AttentionHeads heads;
  float scale;
  DeviceRows<const float> q;
  KvPages<T> kv;
  float* partials;  // each the sums (SummedDims), the largest score, the sum of weights
};

// Scores and weights so far.
struct SoftmaxState {
  float max = -INFINITY;
  float sum = 0.0f;
};

struct CombineFactors {
  float before;
  float own;
};

// Adds a later span's state; sums of values are to be combined with the factors.
SIMT_FUNCTION CombineFactors Combine(SoftmaxState& total, const SoftmaxState& own) {
  const float max = total.max > own.max ? total.max : own.max;
  if (max == -INFINITY) return {1.0f, 1.0f};
  const CombineFactors factors{simt::Exp(total.max - max), simt::Exp(own.max - max)};
  total.sum = total.sum * factors.before + own.sum * factors.own;
  total.max = max;
  return factors;
}

// What a row sees and where its results go. Not there: `last` is before `first`.
struct AttentionRow {
  const float* q = nullptr;
  const float* gates = nullptr;
  float* partial = nullptr;
  int32_t gate_cols = 0;
  int32_t first = 0;
  int32_t last = -1;
};

template <typename T>
SIMT_FUNCTION AttentionRow RowOfItem(const AttentionKernelArgs<T>& args, const AttentionItem& item,
                                     int index) {
  AttentionRow row;
  if (index >= item.rows) return row;
  const DeviceSequence& s = args.sequences[item.sequence];
  const int group = args.heads.num_heads / args.heads.num_kv_heads;
  const int token = (item.row + index) / group;
  const int head = item.kv_head * group + (item.row + index) % group;
  row.q = args.q.data + (s.row_begin + token) * args.q.stride +
          static_cast<int64_t>(head) * args.kv.dim;
  row.gates = s.gates == nullptr ? nullptr : s.gates + token * s.gate_stride;
  row.gate_cols = s.gates == nullptr ? 0 : s.gate_cols;
  const int64_t slot =
      s.partial + (static_cast<int64_t>(token) * args.heads.num_heads + head) * s.slots + item.slot;
  row.partial = args.partials + slot * (SummedDims(args.kv) + 2);
  row.last = s.context_end - (s.row_end - s.row_begin) + token;
  const int32_t oldest = args.heads.window > 0 ? row.last - args.heads.window + 1 : 0;
  row.first = oldest > s.first_key ? oldest : s.first_key;
  return row;
}

SIMT_FUNCTION bool Sees(const AttentionRow& row, int32_t key) {
  const int32_t first = SIMT_MUTATE("attend.window_mask", row.first, row.first + 1);
  const int32_t last = SIMT_MUTATE("attend.causal_mask", row.last, row.last + 1);
  return key >= first && key <= last;
}

SIMT_FUNCTION float GateOf(const AttentionRow& row, int32_t key) {
  return key < row.gate_cols ? row.gates[key] : 1.0f;
}

// exp(before - now), 1 where both are nothing.
SIMT_FUNCTION float Rescale(float before, float now) {
  return now == -INFINITY ? 1.0f : simt::Exp(before - now);
}

}  // namespace polyad::cuda
