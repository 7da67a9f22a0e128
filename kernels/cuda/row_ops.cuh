#pragma once

// Ops on rows one by one, a block of 128 threads to a row:
//   norm:      y = (x - mean) / sqrt(variance + eps) * weight + bias; rms: mean 0, mean square
//   activate:  y = act(x), or act(x[0:n]) * x[n:2n] (activation.h names them)
//   bias:      y[t, column + o] += w_t b[o];  output scale: y[t, column + o] *= c[o]
//   input scale: x[t] = a x[t], rounded;  gather: out[i] = x[rows[i]]
//   argmax:    the first of the largest elements of a row
// A thread adds up every 128th element, then lanes and warps are added in a fixed order, so a row's
// bits depend on its length alone. Sums of a norm go over centred values, as the reference's do.

#include "kernels/api/activation.h"
#include "kernels/cuda/device_rows.h"
#include "kernels/cuda/row_weight.cuh"
#include "kernels/simt/simt.h"

namespace polyad::cuda {

inline constexpr int kRowThreads = 128;
inline constexpr int kRowWarps = kRowThreads / simt::kWarpThreads;

// The sum of all threads' values, for each of them. `scratch` has kRowWarps floats; calls may
// follow each other.
SIMT_FUNCTION float SumOfBlock(float value, const simt::SharedArray<float>& scratch) {
  const int last = SIMT_MUTATE("row_sum.forgets_a_lane", 1, 2);
  for (int lanes = 16; lanes >= last; lanes /= 2) value += simt::ShuffleXor(value, lanes);
  if (simt::Lane() == 0) scratch.Store(simt::WarpIndex(), value);
  SIMT_UNLESS("row_sum.no_barrier_before_read") simt::BlockBarrier();
  float sum = 0.0f;
  for (int warp = 0; warp < kRowWarps; ++warp) sum += scratch.Load(warp);
  SIMT_UNLESS("row_sum.no_barrier_after_read") simt::BlockBarrier();
  return sum;
}

struct NormRowArgs {
  bool is_rms;
  float eps;
  const float* weight;
  const float* bias;  // or null
  DeviceRows<const float> x;
};

template <typename T>
SIMT_KERNEL(kRowThreads)
void NormRows(NormRowArgs args, DeviceRows<T> y) {
  SIMT_SHARED(float, scratch, kRowWarps);
  const float* x = args.x.data + simt::BlockIndex() * args.x.stride;
  T* out = y.data + simt::BlockIndex() * y.stride;
  const int64_t cols = args.x.cols;
  const auto count = static_cast<float>(cols);
  float mean = 0.0f;
  if (!args.is_rms) {
    float sum = 0.0f;
    for (int64_t i = simt::ThreadIndex(); i < cols; i += kRowThreads) sum += x[i];
    mean = SumOfBlock(sum, scratch) / count;
  }
  float squares = 0.0f;
  for (int64_t i = simt::ThreadIndex(); i < cols; i += kRowThreads) {
    const float centred = x[i] - mean;
    squares = simt::Fma(centred, centred, squares);
  }
  const float inverse = simt::InverseRoot(SumOfBlock(squares, scratch) / count + args.eps);
  for (int64_t i = simt::ThreadIndex(); i < cols; i += kRowThreads) {
    const float scaled = (x[i] - mean) * inverse * args.weight[i];
    out[i] = simt::FromFloat<T>(args.bias == nullptr ? scaled : scaled + args.bias[i]);
  }
}

SIMT_FUNCTION float Sigmoid(float x) { return 1.0f / (1.0f + simt::Exp(-x)); }

SIMT_FUNCTION float Act(ActivationKind kind, float x) {
  switch (kind) {
    case ActivationKind::kSilu:
      return x * Sigmoid(x);
    case ActivationKind::kGeluTanh: {
      // x / 2 (1 + tanh(u)) = x sigmoid(2 u), which keeps its digits where tanh(u) is near -1.
      const float u = 0.7978845608028654f * (x + 0.044715f * x * x * x);
      return x * Sigmoid(2.0f * u);
    }
    case ActivationKind::kGeluErf:
      return 0.5f * x * (1.0f + simt::Erf(x * 0.7071067811865476f));
    case ActivationKind::kRelu:
      return x > 0.0f ? x : 0.0f;
    case ActivationKind::kTanh:
      return simt::Tanh(x);
    case ActivationKind::kQuickGelu:
      return x * Sigmoid(1.702f * x);
    case ActivationKind::kLeakyRelu:
      return x > 0.0f ? x : 0.01f * x;
    case ActivationKind::kSigmoid:
      return Sigmoid(x);
    case ActivationKind::kIdentity:
      return x;
  }
  return 0.0f;
}

template <typename T>
SIMT_KERNEL(kRowThreads)
void ActivateRows(ActivationKind kind, bool gated, DeviceRows<const float> x, DeviceRows<T> y) {
  const float* in = x.data + simt::BlockIndex() * x.stride;
  T* out = y.data + simt::BlockIndex() * y.stride;
  for (int64_t i = simt::ThreadIndex(); i < y.cols; i += kRowThreads) {
    const float gate = gated ? in[SIMT_MUTATE("activate.gate_column", y.cols + i, i)] : 1.0f;
    out[i] = simt::FromFloat<T>(Act(kind, in[i]) * gate);
  }
}

// One adapter's vector on one run of rows; items' tiles are of kRowThreads columns.
struct VectorSegment {
  int32_t row_begin = 0;
  int32_t row_end = 0;
  int32_t cols = 0;
  int32_t first_col = 0;
  const float* values = nullptr;
  float scale = 1.0f;
  const float* row_scale = nullptr;
};

enum class VectorStep : uint8_t { kAdd, kMultiply };

struct VectorItem {
  int32_t segment = 0;
  int32_t row = 0;
};

// A block to a row of a segment. T is float for outputs, the activation for inputs.
template <typename T>
SIMT_KERNEL(kRowThreads)
void ApplyVectors(VectorStep step, const VectorSegment* segments, const VectorItem* items,
                  DeviceRows<T> rows) {
  const VectorItem item = items[simt::BlockIndex()];
  const VectorSegment s = segments[item.segment];
  const float weight = RowWeight(s, item.row);
  T* row = rows.data + item.row * rows.stride + s.first_col;
  const int32_t cols = SIMT_MUTATE("vectors.last_column", s.cols, s.cols - 1);
  for (int i = simt::ThreadIndex(); i < cols; i += kRowThreads) {
    const float value = simt::ToFloat(row[i]);
    row[i] = simt::FromFloat<T>(step == VectorStep::kAdd ? value + weight * s.values[i]
                                                         : value * s.values[i]);
  }
}

SIMT_KERNEL(kRowThreads)
void GatherFloatRows(DeviceRows<const float> x, const int32_t* rows, DeviceRows<float> out) {
  const float* from = x.data + rows[simt::BlockIndex()] * x.stride;
  float* to = out.data + simt::BlockIndex() * out.stride;
  for (int64_t i = simt::ThreadIndex(); i < x.cols; i += kRowThreads) to[i] = from[i];
}

// The larger of two, the earlier where they are equal; a NaN only where both are.
struct Scored {
  float value;
  int32_t index;
};
SIMT_FUNCTION Scored BetterOf(const Scored& a, const Scored& b) {
  const bool earlier = SIMT_MUTATE("argmax.ties", a.index<b.index, a.index> b.index);
  return b.value != b.value || a.value > b.value || (a.value == b.value && earlier) ? a : b;
}

SIMT_KERNEL(kRowThreads)
void ArgMaxRows(DeviceRows<const float> logits, Scored* best) {
  SIMT_SHARED(float, values, kRowWarps);
  SIMT_SHARED(int32_t, indices, kRowWarps);
  const float* row = logits.data + simt::BlockIndex() * logits.stride;
  Scored own{row[0], 0};
  for (int64_t i = simt::ThreadIndex(); i < logits.cols; i += kRowThreads) {
    own = BetterOf(own, {row[i], static_cast<int32_t>(i)});
  }
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    own = BetterOf(own, {simt::ShuffleXor(own.value, lanes), simt::ShuffleXor(own.index, lanes)});
  }
  if (simt::Lane() == 0) {
    values.Store(simt::WarpIndex(), own.value);
    indices.Store(simt::WarpIndex(), own.index);
  }
  SIMT_UNLESS("argmax.no_barrier") simt::BlockBarrier();
  if (simt::ThreadIndex() != 0) return;
  for (int warp = 1; warp < kRowWarps; ++warp) {
    own = BetterOf(own, {values.Load(warp), indices.Load(warp)});
  }
  best[simt::BlockIndex()] = own;
}

}  // namespace polyad::cuda
