#pragma once

// Attention in fp32 for the exact mode, on the items of attention_plan.h: a warp to a row, a lane
// to each of 32 keys, then to dimensions 32 apart. Sums go in the order that paged_attention.cuh
// tells of, 32 keys where that has 16.

#include "kernels/cuda/attention_rows.cuh"

namespace polyad::cuda {

inline constexpr int kExactDims = kMaxHeadDim / simt::kWarpThreads;  // of a lane

// The weight of a lane's key, and what sums of values before it are to be multiplied by.
struct LaneWeight {
  float own;
  float rescale;
};

// `score` is -infinity where the lane has no key. The state's sum is that of the lane's keys alone.
SIMT_FUNCTION LaneWeight WeighScore(float score, SoftmaxState& state) {
  float max = score > state.max ? score : state.max;
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    const float other = simt::ShuffleXor(max, lanes);
    max = other > max ? other : max;
  }
  const LaneWeight weight{score == -INFINITY ? 0.0f : simt::Exp(score - max),
                          Rescale(state.max, max)};
  state.max = max;
  state.sum = state.sum * weight.rescale + weight.own;
  return weight;
}

// A warp's row: each lane has the state and the sums of its own dimensions, 32 apart.
struct ExactRow {
  AttentionRow row;
  SoftmaxState span;  // the sum of this lane's keys alone
  SoftmaxState total;
  float sums[kExactDims] = {};
  float totals[kExactDims] = {};
};

// The score of one key, -infinity where the row does not see it.
SIMT_FUNCTION float ExactScore(const AttentionKernelArgs<float>& args, const AttentionItem& item,
                               const AttentionRow& row, int32_t key) {
  if (!Sees(row, key) || key >= item.key_end) return -INFINITY;
  const KvPages<float>& kv = args.kv;
  const int64_t block = args.sequences[item.sequence].blocks[key / kPage];
  const float* k = kv.data + PageRow(kv, block, item.kv_head, kKeyPart, key % kPage);
  float dot = 0.0f;
  for (int i = 0; i < kv.dim; ++i) dot = simt::Fma(row.q[i], k[i], dot);
  return dot * args.scale * GateOf(row, key);
}

// The values of the keys of one step, by their weights.
SIMT_FUNCTION void AddValuesExact(const AttentionKernelArgs<float>& args, const AttentionItem& item,
                                  ExactRow& own, int32_t first_key,
                                  const simt::SharedArray<float>& weights) {
  const KvPages<float>& kv = args.kv;
  for (int j = 0; j < simt::kWarpThreads; ++j) {
    const int32_t key = first_key + j;
    if (!Sees(own.row, key) || key >= item.key_end) continue;
    const int64_t block = args.sequences[item.sequence].blocks[key / kPage];
    const float* v = kv.data + PageRow(kv, block, item.kv_head, kValuePart, key % kPage);
    const float weight = weights.Load(simt::WarpIndex() * simt::kWarpThreads + j);
    SIMT_UNROLL
    for (int i = 0; i < kExactDims; ++i) {
      const int col = i * simt::kWarpThreads + simt::Lane();
      if (col < kv.dim) own.sums[i] = simt::Fma(weight, v[col], own.sums[i]);
    }
  }
}

// The keys of one step of a row, a lane to each, and their values.
SIMT_FUNCTION void AttendStepExact(const AttentionKernelArgs<float>& args,
                                   const AttentionItem& item, ExactRow& own, int32_t first_key,
                                   const simt::SharedArray<float>& weights) {
  const int32_t key = first_key + simt::Lane();
  const float score = ExactScore(args, item, own.row, key);
  const LaneWeight weight = WeighScore(score, own.span);
  weights.Store(simt::ThreadIndex(), weight.own == 0.0f ? 0.0f : weight.own * GateOf(own.row, key));
  simt::WarpBarrier();
  SIMT_UNROLL
  for (int i = 0; i < kExactDims; ++i) own.sums[i] *= weight.rescale;
  AddValuesExact(args, item, own, first_key, weights);
  SIMT_UNLESS("attend_exact.no_barrier") simt::WarpBarrier();
}

SIMT_FUNCTION void EndSpanExact(ExactRow& own) {
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    own.span.sum += simt::ShuffleXor(own.span.sum, lanes);
  }
  const CombineFactors factors = Combine(own.total, own.span);
  SIMT_UNROLL
  for (int i = 0; i < kExactDims; ++i) {
    own.totals[i] = own.totals[i] * factors.before + own.sums[i] * factors.own;
    own.sums[i] = 0.0f;
  }
  own.span = {};
}

SIMT_FUNCTION void AttendRowExact(const AttentionKernelArgs<float>& args, const AttentionItem& item,
                                  const AttentionRow& row,
                                  const simt::SharedArray<float>& weights) {
  constexpr int kStep = simt::kWarpThreads;
  ExactRow own;
  own.row = row;
  for (int key = item.key_begin / kStep * kStep; key < item.key_end; key += kStep) {
    AttendStepExact(args, item, own, key, weights);
    if (key + kStep >= item.key_end || (key + kStep) % kAttentionSpan == 0) EndSpanExact(own);
  }
  SIMT_UNROLL
  for (int i = 0; i < kExactDims; ++i) {
    const int col = i * simt::kWarpThreads + simt::Lane();
    if (col < args.kv.dim) row.partial[col] = own.totals[i];
  }
  if (simt::Lane() == 0) row.partial[args.kv.dim] = own.total.max;
  if (simt::Lane() == 0) row.partial[args.kv.dim + 1] = own.total.sum;
}

SIMT_KERNEL(kBlockThreads) void AttendExact(AttentionKernelArgs<float> args) {
  SIMT_SHARED(float, weights, kBlockThreads);
  const AttentionItem item = args.items[simt::BlockIndex()];
  for (int i = simt::WarpIndex(); i < item.rows; i += kBlockWarps) {
    AttendRowExact(args, item, RowOfItem(args, item, i), weights);
  }
}

}  // namespace polyad::cuda
