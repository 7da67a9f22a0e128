#pragma once

// y[t, o] += w_t sum_g scale[o, g] sum_{i in g} sign[o, i] x[t, i]
//
// On tensor cores: a lane turns its word of signs into +1 and -1 in registers, four matrix
// fragments of A to each four bytes it reads, so weights cost one bit of bandwidth each. A warp has
// 16 outputs and adds all inputs in order, a group's sum before its scale; every product is exact.
// One form for any number of rows, eight to an item. The exact form is fp32: a warp to an output.

#include "kernels/cuda/fragments.cuh"
#include "kernels/cuda/row_weight.cuh"
#include "kernels/cuda/sign_bits.h"
#include "kernels/simt/simt.h"

namespace polyad::cuda {

struct SignArgs {
  const SignSegment* segments;
  const WorkItem* items;
  DeviceRows<const simt::Bf16> x;
  DeviceRows<const float> exact_x;  // in its place for the exact form
  DeviceRows<float> y;
};

SIMT_FUNCTION float GroupScale(const SignSegment& s, int64_t o, int group) {
  return s.scales[s.one_scale != 0 ? 0 : o * s.groups + group];
}

// The four registers of A for bits [8 j, 8 j + 8) of a word: 1.0 or -1.0 in bf16 each.
SIMT_FUNCTION void ExpandSigns(uint32_t (&a)[4], uint32_t word, int j) {
  for (int r = 0; r < 4; ++r) {
    const uint32_t pair = ~(word >> (8 * j + 2 * r));
    const uint32_t high = SIMT_MUTATE("signs.high_half", (pair >> 1 & 1u) << 31, (pair & 1u) << 31);
    a[r] = 0x3f803f80u | (pair & 1u) << 15 | high;
  }
}

SIMT_KERNEL(kBlockThreads) void SignProducts(SignArgs args) {
  const WorkItem item = args.items[simt::BlockIndex()];
  const SignSegment s = args.segments[item.segment];
  const int64_t first = item.tile * kSignOutputs + simt::WarpIndex() * kTile;
  if (first >= s.out) return;
  const int blocks = (s.in + kSignInputs - 1) / kSignInputs;
  const int width = s.in / s.groups;
  const int64_t own = first + simt::Lane() / 4;  // and 8 further
  float totals[4] = {};
  float sums[4] = {};
  int group = 0;
  const auto flush = [&] {
    for (int i = 0; i < 4; ++i) {
      const int64_t o = own + i / 2 * 8;
      if (o < s.out) totals[i] = simt::Fma(GroupScale(s, o, group), sums[i], totals[i]);
      SIMT_UNLESS("signs.group_not_cleared") sums[i] = 0.0f;
    }
  };
  for (int block = 0; block < blocks; ++block) {
    const uint32_t word = s.words[(first / kTile * blocks + block) * 32 + simt::Lane()];
    for (int j = 0; j < kSignInputs / kTile; ++j) {
      const int col = block * kSignInputs + j * kTile;
      if (col >= s.in) break;
      if (SIMT_MUTATE("signs.group_begins_late", col, col - 1) / width != group) {
        flush();
        group = col / width;
      }
      uint32_t a[4];
      uint32_t b[2];
      ExpandSigns(a, word, j);
      LoadRows(b, args.x.data, args.x.stride, item.row, s.row_end, col);
      simt::MmaBf16(sums, a, b);
    }
  }
  flush();
  for (int i = 0; i < 4; ++i) {
    const int64_t o = own + i / 2 * 8;
    const int64_t t = item.row + simt::Lane() % 4 * 2 + i % 2;
    if (o >= s.out || t >= s.row_end) continue;
    args.y.data[t * args.y.stride + s.y_column + o] += RowWeight(s, t) * totals[i];
  }
}

SIMT_KERNEL(kBlockThreads) void SignProductsExact(SignArgs args) {
  const WorkItem item = args.items[simt::BlockIndex()];
  const SignSegment s = args.segments[item.segment];
  const int64_t o = item.tile * kExactSignOutputs + simt::WarpIndex();
  if (o >= s.out) return;
  const float* x = args.exact_x.data + item.row * args.exact_x.stride;
  const int64_t words = (s.in + 31) / 32;
  const int64_t group_words = s.groups == 1 ? words : s.in / s.groups / 32;
  float total = 0.0f;
  for (int group = 0; group < s.groups; ++group) {
    float sum = 0.0f;
    for (int64_t w = group * group_words; w < (group + 1) * group_words; ++w) {
      const int64_t i = w * 32 + simt::Lane();
      const float value = i < s.in ? x[i] : 0.0f;
      sum += (s.exact_bits[o * words + w] >> simt::Lane() & 1u) != 0 ? value : -value;
    }
    for (int lanes = 16; lanes > 0; lanes /= 2) sum += simt::ShuffleXor(sum, lanes);
    total = simt::Fma(GroupScale(s, o, group), sum, total);
  }
  if (simt::Lane() == 0) {
    args.y.data[item.row * args.y.stride + s.y_column + o] += RowWeight(s, item.row) * total;
  }
}

}  // namespace polyad::cuda
