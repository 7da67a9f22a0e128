#pragma once

// v[t, o] = sum_i W[o, i] x[t, i] (+ bias, act, factor), into a sink (product_plan.h).
//
// The order of a sum: warp w adds up the tiles of 16 inputs w, w + 4, w + 8, ... and the four sums
// are added in order. Tiles of numbers go on in the tensor core's sum; a tile of codes has a sum of
// its own, whose products are exact, and then its scale, and where the format has offsets, those
// times the sum of the tile's inputs, in fp32. The form for few rows reads activations straight
// into registers (a GEMV: bound by the weight's bytes, which it reads once); the form for many
// brings 64 rows through shared memory with copies one step ahead and has 64 outputs to a block.
// The exact form is fp32 throughout: lanes add every 32nd input, then halves of the warp.

#include "kernels/cuda/fragments.cuh"
#include "kernels/cuda/product_plan.h"
#include "kernels/cuda/row_ops.cuh"
#include "kernels/cuda/row_weight.cuh"
#include "kernels/simt/simt.h"

namespace polyad::cuda {

struct ProductArgs {
  const ProductSegment* segments;
  const WorkItem* items;
  DeviceRows<float> y;  // of kSet and kAdd
};

SIMT_FUNCTION int RowTiles(const WeightTiles& weight) { return (weight.in + kTile - 1) / kTile; }

// Two floats that are bf16 numbers as a register of a fragment.
SIMT_FUNCTION uint32_t PackExactly(float low, float high) {
  return simt::BitsOfFloat(low) >> 16 | (simt::BitsOfFloat(high) & 0xffff0000u);
}

// E4M3: the exponent and mantissa bits moved to where fp32 has them, times 2^120 for the bias.
SIMT_FUNCTION float NumberOfFloat8(uint32_t code) {
  if ((code & 0x7fu) == 0x7fu) return simt::FloatOfBits(0x7fc00000u);
  const float magnitude = simt::FloatOfBits((code & 0x7fu) << 20) *
                          simt::FloatOfBits(SIMT_MUTATE("codes.float8_bias", 247u, 246u) << 23);
  return (code & 0x80u) != 0 ? -magnitude : magnitude;
}

// Code i of a lane's eight in a tile. Words: one for 4 bits, two for 8.
template <int kBits>
SIMT_FUNCTION uint32_t CodeAt(const uint32_t (&words)[2], int i) {
  constexpr int kEach = 32 / kBits;
  return words[i / kEach] >> (i % kEach * kBits) & ((1u << kBits) - 1u);
}

// The number of a code, or of a level its high part (rest: what that lacks).
template <WeightFormat kFormat>
SIMT_FUNCTION float NumberOf(const WeightTiles& weight, uint32_t code, bool rest) {
  if constexpr (kFormat == WeightFormat::kFloat8) return NumberOfFloat8(code);
  if constexpr (kFormat == WeightFormat::kLevels4) {
    return simt::ToFloat(weight.levels[code + (rest ? 16 : 0)]);
  }
  return static_cast<float>(static_cast<int>(code) - weight.first_code);
}

template <WeightFormat kFormat>
SIMT_FUNCTION void LoadCodes(uint32_t (&words)[2], const WeightTiles& weight, int64_t tile) {
  constexpr int kWords = kCodeBits<kFormat> / 4;
  for (int i = 0; i < kWords; ++i) {
    words[i] = weight.tiles[(tile * simt::kWarpThreads + simt::Lane()) * kWords + i];
  }
}

template <WeightFormat kFormat>
SIMT_FUNCTION void ExpandCodes(uint32_t (&a)[4], const WeightTiles& weight,
                               const uint32_t (&words)[2], bool rest) {
  constexpr int kBits = kCodeBits<kFormat>;
  for (int r = 0; r < 4; ++r) {
    const int first = SIMT_MUTATE("codes.order", 2 * r, r % 2 * 4 + r / 2 * 2);
    a[r] = PackExactly(NumberOf<kFormat>(weight, CodeAt<kBits>(words, first), rest),
                       NumberOf<kFormat>(weight, CodeAt<kBits>(words, first + 1), rest));
  }
}

// The sums of a tile's inputs for each row: the matrix of ones is the first operand.
template <int kN>
SIMT_FUNCTION void SumInputs(float (&sums)[kN][4], const uint32_t (&b)[kN][2]) {
  const uint32_t ones[4] = {0x3f803f80u, 0x3f803f80u, 0x3f803f80u, 0x3f803f80u};
  SIMT_UNROLL
  for (int n = 0; n < kN; ++n) {
    for (int i = 0; i < 4; ++i) sums[n][i] = 0.0f;
    simt::MmaBf16(sums[n], ones, b[n]);
  }
}

// sums += tile (out_tile, tile) of the weight times kN tiles of 8 rows.
template <WeightFormat kFormat, int kN>
SIMT_FUNCTION void AddTile(float (&sums)[kN][4], const WeightTiles& weight, int64_t out_tile,
                           int tile, const uint32_t (&b)[kN][2], const float (&inputs)[kN][4]) {
  const int64_t at = out_tile * RowTiles(weight) + tile;
  uint32_t a[4];
  if constexpr (kFormat == WeightFormat::kBf16) {
    LoadWeights(a, reinterpret_cast<const simt::Bf16*>(weight.tiles), at);
    SIMT_UNROLL
    for (int n = 0; n < kN; ++n) simt::MmaBf16(sums[n], a, b[n]);
    return;
  }
  uint32_t words[2];
  LoadCodes<kFormat>(words, weight, at);
  ExpandCodes<kFormat>(a, weight, words, false);
  uint32_t rest[4];
  if constexpr (kFormat == WeightFormat::kLevels4) {
    ExpandCodes<kFormat>(rest, weight, words, true);
  }
  float scale[2];
  float offset[2] = {};
  const int group = tile / weight.group_tiles;
  for (int half = 0; half < 2; ++half) {
    const int64_t row = out_tile * kTile + simt::Lane() / 4 + half * 8;
    const int64_t place = row * weight.groups + SIMT_MUTATE("codes.group", group, 0);
    scale[half] = weight.scales[place];
    if (weight.offsets != nullptr) offset[half] = weight.offsets[place];
  }
  SIMT_UNROLL
  for (int n = 0; n < kN; ++n) {
    float own[4] = {};
    simt::MmaBf16(own, a, b[n]);
    if constexpr (kFormat == WeightFormat::kLevels4) {
      SIMT_UNLESS("codes.no_rest") simt::MmaBf16(own, rest, b[n]);
    }
    for (int i = 0; i < 4; ++i) {
      sums[n][i] = simt::Fma(scale[i / 2], own[i], sums[n][i]);
      if (weight.offsets != nullptr) {
        sums[n][i] = simt::Fma(SIMT_MUTATE("codes.offset_row", offset[i / 2], offset[i % 2]),
                               inputs[n][i], sums[n][i]);
      }
    }
  }
}

// What becomes of the sum of row t and output o of the weight.
SIMT_FUNCTION void Finish(const ProductArgs& args, const ProductSegment& s, int64_t t, int64_t o,
                          float sum) {
  const int64_t own = o - s.first_out;
  float value = sum;
  if (o < s.weight.out) {
    if (s.bias != nullptr) value += s.bias[o];
    if (s.activation >= 0) value = Act(static_cast<ActivationKind>(s.activation), value);
    if (s.factor != nullptr) value *= s.factor[o * s.factor_step];
  }
  const bool inside = own >= 0 && own < s.out;
  const int64_t hidden = (t - s.row_begin) * s.hidden_stride + own;
  switch (s.sink) {
    case ProductSink::kSet:
      if (inside) args.y.data[t * args.y.stride + s.y_column + own] = value;
      return;
    case ProductSink::kAdd:
      if (inside) args.y.data[t * args.y.stride + s.y_column + own] += RowWeight(s, t) * value;
      return;
    case ProductSink::kHidden: {
      if (own < 0 || own >= (s.out + kTile - 1) / kTile * kTile) return;
      const float kept =
          inside ? value
                 : SIMT_MUTATE("product.no_zeros_behind", 0.0f, simt::FloatOfBits(0x7fc00000u));
      if (s.exact_hidden != nullptr) {
        s.exact_hidden[hidden] = kept;
      } else {
        s.hidden[hidden] = simt::ToBf16(kept);
      }
      return;
    }
    case ProductSink::kActivations:
      if (!inside) return;
      if (s.exact_hidden != nullptr) {
        s.exact_hidden[hidden] += RowWeight(s, t) * value;
      } else {
        s.hidden[hidden] = simt::ToBf16(simt::ToFloat(s.hidden[hidden]) + RowWeight(s, t) * value);
      }
      return;
  }
}

template <WeightFormat kFormat>
SIMT_KERNEL(kBlockThreads)
void ProductFew(ProductArgs args) {
  constexpr int kSums = kProductFewOut * kProductFewRows;
  SIMT_SHARED(float, partial, kBlockWarps* kSums);
  const WorkItem item = args.items[simt::BlockIndex()];
  const ProductSegment s = args.segments[item.segment];
  const int64_t out_tile = s.first_out / kTile + item.tile;
  const int tiles = RowTiles(s.weight);
  float sums[1][4] = {};
  for (int tile = simt::WarpIndex(); tile < tiles; tile += kBlockWarps) {
    uint32_t b[1][2];
    LoadRows(b[0], s.x, s.x_stride, item.row - s.row_begin, s.row_end - s.row_begin, tile * kTile);
    float inputs[1][4] = {};
    if (s.weight.offsets != nullptr) SumInputs<1>(inputs, b);
    AddTile<kFormat, 1>(sums, s.weight, out_tile, tile, b, inputs);
  }
  const int lane = simt::Lane();
  for (int i = 0; i < 4; ++i) {
    const int out = lane / 4 + i / 2 * 8;
    const int row = lane % 4 * 2 + i % 2;
    partial.Store(simt::WarpIndex() * kSums + row * kProductFewOut + out, sums[0][i]);
  }
  SIMT_UNLESS("product_few.no_barrier") simt::BlockBarrier();
  const int at = simt::ThreadIndex();
  float sum = partial.Load(at);
  const int warps = SIMT_MUTATE("product_few.forgets_a_warp", kBlockWarps, kBlockWarps - 1);
  for (int warp = 1; warp < warps; ++warp) sum += partial.Load(warp * kSums + at);
  const int64_t row = item.row + at / kProductFewOut;
  if (row < s.row_end) Finish(args, s, row, out_tile * kTile + at % kProductFewOut, sum);
}

// A warp's part of the sums of 64 outputs by 64 rows, into those of the warps before it.
SIMT_FUNCTION void AddWarp(const simt::SharedArray<float>& total, int out_tile,
                           const float (&sums)[kProductManyRows / 8][4], bool is_first) {
  const int lane = simt::Lane();
  SIMT_UNROLL
  for (int n = 0; n < kProductManyRows / 8; ++n) {
    for (int i = 0; i < 4; ++i) {
      const int out = out_tile * kTile + lane / 4 + i / 2 * 8;
      const int at = (n * 8 + lane % 4 * 2 + i % 2) * kProductManyOut + out;
      total.Store(at, is_first ? sums[n][i] : total.Load(at) + sums[n][i]);
    }
  }
}

template <WeightFormat kFormat>
SIMT_KERNEL(kBlockThreads)
void ProductMany(ProductArgs args) {
  constexpr int kRowTiles = kProductManyRows / 8;
  constexpr int kOutTiles = kProductManyOut / kTile;
  constexpr int kCols = kBlockWarps * kTile;  // of a step
  constexpr int kStride = kCols + 8;          // rows of a stage fall into different banks
  constexpr int kStage = kProductManyRows * kStride;
  SIMT_SHARED(simt::Bf16, staged, 2 * kStage);
  SIMT_SHARED(float, total, kProductManyRows* kProductManyOut);
  const WorkItem item = args.items[simt::BlockIndex()];
  const ProductSegment s = args.segments[item.segment];
  const int64_t first_tile = s.first_out / kTile + item.tile * kOutTiles;
  const int64_t end_tile = (s.weight.out + kTile - 1) / kTile;
  const int tiles = RowTiles(s.weight);
  const int steps = (tiles + kBlockWarps - 1) / kBlockWarps;
  const auto copy = [&](int step) {
    CopyRows<kProductManyRows>(staged, step % 2 * kStage, kStride, s.x, s.x_stride,
                               item.row - s.row_begin, s.row_end - s.row_begin, step * kCols,
                               s.x_stride);
  };
  float sums[kOutTiles][kRowTiles][4] = {};
  copy(0);
  for (int step = 0; step < steps; ++step) {
    if (step + 1 < steps) {
      copy(step + 1);
      simt::WaitCopies<1>();
    } else {
      SIMT_UNLESS("product_many.no_wait") simt::WaitCopies<0>();
    }
    SIMT_UNLESS("product_many.no_barrier_after_wait") simt::BlockBarrier();
    const int tile = step * kBlockWarps + simt::WarpIndex();
    if (tile < tiles) {
      uint32_t b[kRowTiles][2];
      SIMT_UNROLL
      for (int n = 0; n < kRowTiles / 2; ++n) {
        uint32_t two[4];
        const int stage = SIMT_MUTATE("product_many.wrong_stage", step % 2, (step + 1) % 2);
        LoadSharedRows(two, staged, kStride, stage * kProductManyRows + n * 16,
                       simt::WarpIndex() * kTile);
        b[2 * n][0] = two[0];
        b[2 * n][1] = two[1];
        b[2 * n + 1][0] = two[2];
        b[2 * n + 1][1] = two[3];
      }
      float inputs[kRowTiles][4] = {};
      if (s.weight.offsets != nullptr) SumInputs<kRowTiles>(inputs, b);
      SIMT_UNROLL
      for (int out = 0; out < kOutTiles; ++out) {
        if (first_tile + out < end_tile) {
          AddTile<kFormat, kRowTiles>(sums[out], s.weight, first_tile + out, tile, b, inputs);
        }
      }
    }
    SIMT_UNLESS("product_many.no_barrier_before_copy") simt::BlockBarrier();
  }
  for (int warp = 0; warp < kBlockWarps; ++warp) {
    if (simt::WarpIndex() == warp) {
      SIMT_UNROLL
      for (int out = 0; out < kOutTiles; ++out) AddWarp(total, out, sums[out], warp == 0);
    }
    SIMT_UNLESS("product_many.no_barrier_between_warps") simt::BlockBarrier();
  }
  for (int at = simt::ThreadIndex(); at < kProductManyRows * kProductManyOut; at += kBlockThreads) {
    const int64_t row = item.row + at / kProductManyOut;
    const int64_t out = first_tile * kTile + at % kProductManyOut;
    if (row < s.row_end) Finish(args, s, row, out, total.Load(at));
  }
}

// A warp per output.
SIMT_KERNEL(kBlockThreads) void ProductExact(ProductArgs args) {
  const WorkItem item = args.items[simt::BlockIndex()];
  const ProductSegment s = args.segments[item.segment];
  const int64_t own = item.tile * kProductExactOut + simt::WarpIndex();
  if (own >= s.out) return;
  const int64_t o = s.first_out + own;
  const float* x = s.exact_x + (item.row - s.row_begin) * s.x_stride;
  const float* w = s.exact_weight + o * s.weight.in;
  float sum = 0.0f;
  for (int i = simt::Lane(); i < s.weight.in; i += simt::kWarpThreads) {
    sum = simt::Fma(w[i], x[i], sum);
  }
  const int last = SIMT_MUTATE("product_exact.forgets_a_lane", 1, 2);
  for (int lanes = 16; lanes >= last; lanes /= 2) sum += simt::ShuffleXor(sum, lanes);
  if (simt::Lane() == 0) Finish(args, s, item.row, o, sum);
}

template <WeightFormat kFormat>
void LaunchProduct(const ProductLaunch& launch, const ProductArgs& args, simt::Stream stream) {
  const simt::LaunchShape shape{launch.num_items, kBlockThreads};
  if (launch.form == ProductForm::kFew) {
    simt::Launch(shape, stream, ProductFew<kFormat>, args);
  } else {
    simt::Launch(shape, stream, ProductMany<kFormat>, args);
  }
}

// `args.items` are those of the whole plan, in device memory.
inline void LaunchProducts(const ProductPlan& plan, ProductArgs args, simt::Stream stream) {
  const WorkItem* items = args.items;
  for (const ProductLaunch& launch : plan.launches) {
    args.items = items + launch.first_item;
    if (launch.form == ProductForm::kExact) {
      simt::Launch({launch.num_items, kBlockThreads}, stream, ProductExact, args);
      continue;
    }
    switch (launch.format) {
      case WeightFormat::kBf16:
        LaunchProduct<WeightFormat::kBf16>(launch, args, stream);
        break;
      case WeightFormat::kInteger8:
        LaunchProduct<WeightFormat::kInteger8>(launch, args, stream);
        break;
      case WeightFormat::kInteger4:
        LaunchProduct<WeightFormat::kInteger4>(launch, args, stream);
        break;
      case WeightFormat::kLevels4:
        LaunchProduct<WeightFormat::kLevels4>(launch, args, stream);
        break;
      case WeightFormat::kFloat8:
        LaunchProduct<WeightFormat::kFloat8>(launch, args, stream);
        break;
    }
  }
}

// out[t] = table[ids[t]], or += it: a block to a row. Elements are read where their tile has them,
// or from a table whose rows are stored as they are.
struct EmbedArgs {
  WeightTiles table;
  const float* exact_table;  // [out, in], or null
  const int32_t* ids;
  bool adds;
  DeviceRows<float> out;
  const simt::Bf16* plain_table = nullptr;  // [out, plain_stride], or null
  int64_t plain_stride = 0;
};

SIMT_FUNCTION float ElementOfTiles(const WeightTiles& weight, int64_t row, int64_t col) {
  const int64_t tile = row / kTile * RowTiles(weight) + col / kTile;
  const auto r = static_cast<int>(row % kTile);
  const auto c = static_cast<int>(col % kTile);
  const int lane = r % 8 * 4 + c % 8 / 2;
  const int i = c % 2 + SIMT_MUTATE("embed.place", r / 8, c / 8) * 2 +
                SIMT_MUTATE("embed.place", c / 8, r / 8) * 4;
  const int64_t at = (tile * simt::kWarpThreads + lane) * kFragmentElements + i;
  if (weight.format == WeightFormat::kBf16) {
    return simt::ToFloat(reinterpret_cast<const simt::Bf16*>(weight.tiles)[at]);
  }
  const bool is_short =
      weight.format == WeightFormat::kInteger4 || weight.format == WeightFormat::kLevels4;
  const int bits = is_short ? 4 : 8;
  const uint32_t code = weight.tiles[at * bits / 32] >> (at * bits % 32) & ((1u << bits) - 1u);
  float number = 0.0f;
  if (weight.format == WeightFormat::kFloat8) {
    number = NumberOfFloat8(code);
  } else if (weight.format == WeightFormat::kLevels4) {
    number = simt::ToFloat(weight.levels[code]) + simt::ToFloat(weight.levels[code + 16]);
  } else {
    number = static_cast<float>(static_cast<int>(code) - weight.first_code);
  }
  const int64_t place = row * weight.groups + col / kTile / weight.group_tiles;
  const float scaled = weight.scales[place] * number;
  return weight.offsets == nullptr ? scaled : scaled + weight.offsets[place];
}

SIMT_FUNCTION float ElementOfTable(const EmbedArgs& args, int64_t row, int64_t col) {
  if (args.exact_table != nullptr) return args.exact_table[row * args.table.in + col];
  if (args.plain_table != nullptr) {
    return simt::ToFloat(args.plain_table[row * args.plain_stride + col]);
  }
  return ElementOfTiles(args.table, row, col);
}

SIMT_KERNEL(kRowThreads) void EmbedRows(EmbedArgs args) {
  const int64_t t = simt::BlockIndex();
  const int64_t id = args.ids[t];
  float* out = args.out.data + t * args.out.stride;
  for (int64_t i = simt::ThreadIndex(); i < args.out.cols; i += kRowThreads) {
    const float value = ElementOfTable(args, id, i);
    out[i] = args.adds ? out[i] + value : value;
  }
}

}  // namespace polyad::cuda
