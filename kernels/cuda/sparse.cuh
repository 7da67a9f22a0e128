#pragma once

// Deltas that touch few weights, in fp32:
//   sparse:     y[t, o] += w_t sum over the stored (o, i) of value x[t, i]
//   dense rows: y[t, rows[n]] += w_t sum_i V[n, i] x[t, i]
//
// A warp has an output for up to 8 rows, so that values are read once for all of them. Lane l adds
// up every 32nd value from the l-th on, then halves of the warp are added, so a row's bits do not
// depend on the rows beside it.

#include "kernels/cuda/device_rows.h"
#include "kernels/cuda/row_weight.cuh"
#include "kernels/cuda/sparse_plan.h"
#include "kernels/simt/simt.h"

namespace polyad::cuda {

template <typename T>
struct SparseArgs {
  const SparseSegment* segments;
  const WorkItem* items;
  DeviceRows<const T> x;
  DeviceRows<float> y;
};

template <typename T>
SIMT_KERNEL(kSparseThreads)
void SparseProducts(SparseArgs<T> args) {
  const WorkItem item = args.items[simt::BlockIndex()];
  const SparseSegment s = args.segments[item.segment];
  const int64_t n = static_cast<int64_t>(item.tile) * kSparseOutputs + simt::WarpIndex();
  if (n >= s.num_outputs) return;
  const bool is_dense = s.columns == nullptr;
  const int64_t begin = is_dense ? n * s.in : s.row_begins[n];
  const int64_t end = is_dense ? begin + s.in : s.row_begins[n + 1];
  float sums[kSparseRows] = {};
  for (int64_t at = begin + simt::Lane(); at < end; at += simt::kWarpThreads) {
    const float value = s.values[at];
    const int64_t col = is_dense ? at - begin : s.columns[at];
    SIMT_UNROLL
    for (int r = 0; r < kSparseRows; ++r) {
      if (item.row + r >= s.row_end) continue;
      sums[r] = simt::Fma(value, simt::ToFloat(args.x.data[(item.row + r) * args.x.stride + col]),
                          sums[r]);
    }
  }
  const int64_t o = is_dense ? s.outputs[n] : n;
  SIMT_UNROLL
  for (int r = 0; r < kSparseRows; ++r) {
    const int last = SIMT_MUTATE("sparse.forgets_a_lane", 1, 2);
    for (int lanes = 16; lanes >= last; lanes /= 2) sums[r] += simt::ShuffleXor(sums[r], lanes);
    const int64_t t = item.row + r;
    if (simt::Lane() != 0 || t >= SIMT_MUTATE("sparse.row_mask", s.row_end, s.row_end - 1)) {
      continue;
    }
    args.y.data[t * args.y.stride + s.y_column + o] += RowWeight(s, t) * sums[r];
  }
}

}  // namespace polyad::cuda
