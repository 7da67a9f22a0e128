#pragma once

// y[t, a k + b] += w_t sum_i C[a, i] sum_j D[b, j] x[t, i n + j]   (X = x as [m, n]: C X D')
//
// A block has one row and a tile of 32 a by 32 b. It goes along i in tiles of 32: the inner sums of
// the tile in shared memory, in fp32, then each thread adds them to its eight outputs, i in order.
// Nothing is as large as the whole matrix; the inner sums of a tile of b are computed once for each
// tile of a.

#include "kernels/cuda/device_rows.h"
#include "kernels/cuda/kronecker_plan.h"
#include "kernels/cuda/row_weight.cuh"
#include "kernels/simt/simt.h"

namespace polyad::cuda {

template <typename T>
struct KroneckerArgs {
  const KroneckerSegment* segments;
  const WorkItem* items;
  DeviceRows<const T> x;
  DeviceRows<float> y;
};

template <typename T>
SIMT_KERNEL(kKroneckerThreads)
void KroneckerProducts(KroneckerArgs<T> args) {
  constexpr int kSide = kKroneckerTile;
  constexpr int kEach = kSide * kSide / kKroneckerThreads;  // outputs of a thread
  constexpr int kStep = kKroneckerThreads / kSide;          // rows between them
  SIMT_SHARED(float, inner, kSide* kSide);
  const WorkItem item = args.items[simt::BlockIndex()];
  const KroneckerSegment s = args.segments[item.segment];
  const int b_tiles = (s.k + kSide - 1) / kSide;
  const int own_b = simt::ThreadIndex() % kSide;
  const int own_row = simt::ThreadIndex() / kSide;
  const int b = item.tile % b_tiles * kSide + own_b;
  const int a = item.tile / b_tiles * kSide + own_row;
  const T* x = args.x.data + item.row * args.x.stride;
  float sums[kEach] = {};
  for (int first = 0; first < s.m; first += kSide) {
    SIMT_UNROLL
    for (int e = 0; e < kEach; ++e) {
      const int i = first + own_row + e * kStep;
      float sum = 0.0f;
      for (int j = 0; j < s.n && i < s.m && b < s.k; ++j) {
        sum = simt::Fma(s.d_transposed[static_cast<int64_t>(j) * s.k + b],
                        simt::ToFloat(x[static_cast<int64_t>(i) * s.n + j]), sum);
      }
      inner.Store((own_row + e * kStep) * kSide + own_b, sum);
    }
    SIMT_UNLESS("kronecker.no_barrier") simt::BlockBarrier();
    const int count = s.m - first < kSide ? s.m - first : kSide;
    SIMT_UNROLL
    for (int e = 0; e < kEach; ++e) {
      const int64_t row = a + SIMT_MUTATE("kronecker.own_row", e * kStep, e);
      if (row >= s.l) continue;
      for (int i = 0; i < count; ++i) {
        sums[e] = simt::Fma(s.c[row * s.m + first + i], inner.Load(i * kSide + own_b), sums[e]);
      }
    }
    SIMT_UNLESS("kronecker.no_barrier_before_next") simt::BlockBarrier();
  }
  SIMT_UNROLL
  for (int e = 0; e < kEach; ++e) {
    const int64_t row = a + e * kStep;
    if (row >= s.l || b >= s.k) continue;
    args.y.data[item.row * args.y.stride + s.y_column + row * s.k + b] +=
        RowWeight(s, item.row) * sums[e];
  }
}

}  // namespace polyad::cuda
