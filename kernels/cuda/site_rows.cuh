#pragma once

// Input, output and embedding ops of adapters, and moves of rows, a block to a row:
//   pair rotation:  y = f * y + g * rot(y), rot per group: (-second half, first half)
//   block rotation: u = x[order]; v = u R, block by block; to[order] = v
//   norm:           to = (x - mean) / sqrt(variance + eps) * weight + bias
//   embedding rows: e = the row given for this token, where there is one
//   embedding low rank: e = column_scale * (e + B A[:, token])
//   moves:          to = x, to += x, to = 0, rounded where `to` is bf16
// Block rotation and norm write elsewhere: all of a row is read before it may change.

#include "kernels/cuda/row_ops.cuh"
#include "kernels/simt/simt.h"

namespace polyad::cuda {

struct PairRotationArgs {
  const float* f;  // [out]
  const float* g;
  int32_t out;
  int32_t half;  // of a group
  int32_t row_begin;
  int32_t first_col;
  DeviceRows<float> y;
};

SIMT_KERNEL(kRowThreads) void RotatePairs(PairRotationArgs args) {
  float* y = args.y.data + (args.row_begin + simt::BlockIndex()) * args.y.stride + args.first_col;
  for (int pair = simt::ThreadIndex(); pair < args.out / 2; pair += kRowThreads) {
    const int i = pair / args.half * 2 * args.half + pair % args.half;
    const int j = i + args.half;
    const float first = y[i];
    const float second = y[j];
    const float sign = SIMT_MUTATE("pairs.sign", -1.0f, 1.0f);
    y[i] = simt::Fma(args.f[i], first, sign * args.g[i] * second);
    y[j] = simt::Fma(args.f[j], second, args.g[j] * first);
  }
}

struct BlockRotationArgs {
  const int32_t* order;  // [in] or null: as they stand
  const float* blocks;   // [in / size or 1, size, size]
  int32_t size;
  int32_t in;
  int32_t shared;  // 1: one block for all
  int32_t row_begin;
};

// Row t of x to row t - row_begin of `to`.
template <typename T>
SIMT_KERNEL(kRowThreads)
void RotateBlocks(BlockRotationArgs args, DeviceRows<const T> x, DeviceRows<T> to) {
  const T* from = x.data + (args.row_begin + simt::BlockIndex()) * x.stride;
  T* out = to.data + simt::BlockIndex() * to.stride;
  for (int64_t at = simt::ThreadIndex(); at < args.in; at += kRowThreads) {
    const int64_t begin = at / args.size * args.size;
    const float* block = args.blocks + (args.shared != 0 ? 0 : begin * args.size) + at % args.size;
    float sum = 0.0f;
    for (int64_t i = 0; i < args.size; ++i) {
      const int64_t place = args.order == nullptr ? begin + i : args.order[begin + i];
      sum = simt::Fma(simt::ToFloat(from[place]), block[i * args.size], sum);
    }
    const int64_t place = args.order == nullptr ? at : args.order[at];
    out[SIMT_MUTATE("blocks.order", place, at)] = simt::FromFloat<T>(sum);
  }
}

// Row t of x to row t - row_begin of `to`.
template <typename T>
SIMT_KERNEL(kRowThreads)
void NormActivations(NormRowArgs args, int32_t row_begin, DeviceRows<const T> x, DeviceRows<T> to) {
  SIMT_SHARED(float, scratch, kRowWarps);
  const T* from = x.data + (row_begin + simt::BlockIndex()) * x.stride;
  T* out = to.data + simt::BlockIndex() * to.stride;
  const auto count = static_cast<float>(x.cols);
  float sum = 0.0f;
  for (int64_t i = simt::ThreadIndex(); i < x.cols; i += kRowThreads) sum += simt::ToFloat(from[i]);
  const float mean = SumOfBlock(sum, scratch) / count;
  float squares = 0.0f;
  for (int64_t i = simt::ThreadIndex(); i < x.cols; i += kRowThreads) {
    const float centred = simt::ToFloat(from[i]) - mean;
    squares = simt::Fma(centred, centred, squares);
  }
  const float inverse = simt::InverseRoot(SumOfBlock(squares, scratch) / count + args.eps);
  for (int64_t i = simt::ThreadIndex(); i < x.cols; i += kRowThreads) {
    const float scaled = (simt::ToFloat(from[i]) - mean) * inverse * args.weight[i];
    out[i] = simt::FromFloat<T>(args.bias == nullptr ? scaled : scaled + args.bias[i]);
  }
}

struct EmbeddingArgs {
  const int32_t* tokens;  // of the rows of the call
  int32_t row_begin;
  int32_t hidden;
  const int32_t* ids;  // [n], ascending (rows)
  int32_t n;           // ids, or columns of A
  const float* rows;   // [n, hidden]
  const float* a;      // [n, rank], A transposed (low rank)
  const float* b;      // [hidden, rank], the op's scale in it
  int32_t rank;
  const float* column_scale;  // [hidden] or null
  DeviceRows<float> e;
};

SIMT_KERNEL(kRowThreads) void ReplaceEmbeddings(EmbeddingArgs args) {
  const int64_t t = args.row_begin + simt::BlockIndex();
  const int32_t token = args.tokens[t];
  int32_t low = 0;
  int32_t high = args.n;
  while (low < high) {
    const int32_t middle = low + (high - low) / 2;
    if (args.ids[middle] < token) {
      low = middle + 1;
    } else {
      high = SIMT_MUTATE("embedding.search", middle, middle - 1);
    }
  }
  if (low < 0 || low >= args.n || args.ids[low] != token) return;
  float* e = args.e.data + t * args.e.stride;
  const float* row = args.rows + static_cast<int64_t>(low) * args.hidden;
  for (int i = simt::ThreadIndex(); i < args.hidden; i += kRowThreads) e[i] = row[i];
}

SIMT_KERNEL(kRowThreads) void AddLowRankEmbeddings(EmbeddingArgs args) {
  const int64_t t = args.row_begin + simt::BlockIndex();
  const int32_t token = args.tokens[t];
  if (token < 0 || token >= args.n) return;
  float* e = args.e.data + t * args.e.stride;
  const float* a = args.a + static_cast<int64_t>(token) * args.rank;
  for (int i = simt::ThreadIndex(); i < args.hidden; i += kRowThreads) {
    const float* b = args.b + static_cast<int64_t>(i) * args.rank;
    float sum = 0.0f;
    const int rank = SIMT_MUTATE("embedding.last_rank", args.rank, args.rank - 1);
    for (int r = 0; r < rank; ++r) sum = simt::Fma(b[r], a[r], sum);
    const float scale = args.column_scale == nullptr ? 1.0f : args.column_scale[i];
    e[i] = scale * (e[i] + sum);
  }
}

enum class Move : uint8_t { kCopy, kAdd, kZero };

// x is not read where it is all zeros.
template <typename From, typename To>
SIMT_KERNEL(kRowThreads)
void MoveRows(Move move, DeviceRows<const From> x, DeviceRows<To> to) {
  const From* from = x.data + simt::BlockIndex() * x.stride;
  To* out = to.data + simt::BlockIndex() * to.stride;
  const int64_t cols = SIMT_MUTATE("move.last_column", to.cols, to.cols - 1);
  for (int64_t i = simt::ThreadIndex(); i < cols; i += kRowThreads) {
    float value = move == Move::kZero ? 0.0f : simt::ToFloat(from[i]);
    if (move == Move::kAdd) value = simt::ToFloat(out[i]) + value;
    out[i] = simt::FromFloat<To>(value);
  }
}

}  // namespace polyad::cuda
