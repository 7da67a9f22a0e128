#pragma once

// out[t, h] += gate[h] sum_j softmax_j(scale q[t, h] . k[j, g]) v[j, g] over an adapter's own keys
// (kernels/api/backend.h, GatedPrefixArgs), in fp32: a block to a row, a warp to a head, a lane to
// each of 32 keys, then to dimensions 32 apart. Bits depend on the row and the keys alone. Head
// dims up to kMaxHeadDim.

#include "kernels/cuda/exact_attention.cuh"

namespace polyad::cuda {

struct GatedPrefixRowArgs {
  DeviceRows<const float> q;
  DeviceRows<const float> kv;  // keys, then values
  int32_t num_heads;
  int32_t num_kv_heads;
  int32_t dim;
  float scale;
  const float* gate;  // [num_heads]
};

template <typename T>
SIMT_FUNCTION void AddPrefixOfHead(const GatedPrefixRowArgs& args, const float* q, int head,
                                   const simt::SharedArray<float>& weights, T* out) {
  const int kv_head = head / (args.num_heads / args.num_kv_heads);
  const float* keys = args.kv.data + static_cast<int64_t>(kv_head) * args.dim;
  const float* values = keys + static_cast<int64_t>(args.num_kv_heads) * args.dim;
  SoftmaxState state;
  float sums[kExactDims] = {};
  for (int64_t first = 0; first < args.kv.rows; first += simt::kWarpThreads) {
    const int64_t key = first + simt::Lane();
    float score = -INFINITY;
    if (key < args.kv.rows) {
      float dot = 0.0f;
      for (int i = 0; i < args.dim; ++i) {
        dot = simt::Fma(q[i], keys[key * args.kv.stride + i], dot);
      }
      score = dot * args.scale;
    }
    const LaneWeight weight = WeighScore(score, state);
    weights.Store(simt::ThreadIndex(), weight.own);
    simt::WarpBarrier();
    SIMT_UNROLL
    for (int i = 0; i < kExactDims; ++i) sums[i] *= weight.rescale;
    for (int j = 0; j < simt::kWarpThreads && first + j < args.kv.rows; ++j) {
      const float own = weights.Load(simt::WarpIndex() * simt::kWarpThreads + j);
      SIMT_UNROLL
      for (int i = 0; i < kExactDims; ++i) {
        const int col = i * simt::kWarpThreads + simt::Lane();
        if (col < args.dim) {
          sums[i] = simt::Fma(own, values[(first + j) * args.kv.stride + col], sums[i]);
        }
      }
    }
    SIMT_UNLESS("prefix.no_barrier") simt::WarpBarrier();
  }
  const int last = SIMT_MUTATE("prefix.forgets_a_lane", 1, 2);
  for (int lanes = 16; lanes >= last; lanes /= 2) state.sum += simt::ShuffleXor(state.sum, lanes);
  SIMT_UNROLL
  for (int i = 0; i < kExactDims; ++i) {
    const int col = i * simt::kWarpThreads + simt::Lane();
    if (col >= args.dim) continue;
    const float before = simt::ToFloat(out[col]);
    out[col] = simt::FromFloat<T>(before + args.gate[head] * (sums[i] / state.sum));
  }
}

template <typename T>
SIMT_KERNEL(kBlockThreads)
void AddGatedPrefixRows(GatedPrefixRowArgs args, DeviceRows<T> out) {
  SIMT_SHARED(float, weights, kBlockThreads);
  const float* q = args.q.data + simt::BlockIndex() * args.q.stride;
  T* row = out.data + simt::BlockIndex() * out.stride;
  for (int head = simt::WarpIndex(); head < args.num_heads; head += kBlockWarps) {
    const int64_t first = static_cast<int64_t>(head) * args.dim;
    AddPrefixOfHead(args, q + first, head, weights, row + first);
  }
}

}  // namespace polyad::cuda
