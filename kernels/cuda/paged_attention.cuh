#pragma once

// out[t, h] = sum_j softmax_j(scale q[t, h] . k[j]) v[j] over the keys that t sees, causal, sliding
// and gated as kernels/api/backend.h has it, on the items of attention_plan.h.
//
// The order of a sum: within a span of 256 keys, pages of 16 keys in order with a running largest
// score (online softmax: Milakov and Gimelshein 2018; the tiling: FlashAttention, Dao et al. 2022),
// starting anew in each span; then spans in order, by Combine. A page that a row sees nothing of
// changes no bit of the row. So neither its tile mates nor where an item begins and ends matter,
// nor whether spans are combined by the block that met them (prefills) or later (decoding).
//
// bf16 pages and pages of codes: q is rounded to bf16; a warp has 16 rows of q as A against pages
// of keys, and their weights as A against pages of values. Head dims up to kMaxHeadDim. Codes
// come into shared memory as they are stored and are unpacked there, to bf16 numbers, a page before
// it is used; where they are of turned groups, q is turned before and the sums of values are turned
// back when they are merged. The exact form is in
// exact_attention.cuh.

#include "kernels/cuda/attention_rows.cuh"
#include "kernels/cuda/exact_attention.cuh"

namespace polyad::cuda {

inline constexpr int kPageStages = 3;  // pages in shared memory: one in use, two on their way

// A block's shared memory: q of its warps, then pages of keys and values as bf16 rows, then, of
// codes, pages as they are stored. Pages of bf16 are on their way in the rows; of codes there is
// one page of rows, the one in use. Rows lie 16 bytes further apart than they are long, for the
// banks. In elements.
template <typename T>
struct AttentionTiles {
  static constexpr int kPages = kIsCoded<T> ? 1 : kPageStages;

  simt::SharedArray<simt::Bf16> rows;
  int stride;
  int pages;  // where they begin
  int coded;  // of a page, as it is stored

  SIMT_FUNCTION int Page(int page, int part) const {
    return pages + (page % kPages * 2 + part) * kPage * stride;
  }
  SIMT_FUNCTION int Codes(int page) const {
    return pages + 2 * kPage * stride + page % kPageStages * coded;
  }
};

// Of a page's codes in shared memory, in bytes.
SIMT_HOST_DEVICE int CodedBytes(const KvPages<simt::Bf16>&) { return 0; }
template <KvFormat kFormat>
SIMT_HOST_DEVICE int CodedBytes(const KvPages<Coded<kFormat>>& kv) {
  return CodedHeadBytes(kFormat, kv.stride);
}

template <typename T>
SIMT_HOST_DEVICE int AttentionSharedBytes(int warps, const KvPages<T>& kv) {
  const int rows = warps * kAttentionTile + AttentionTiles<T>::kPages * 2 * kPage;
  return rows * (kv.stride + 8) * 2 + kPageStages * CodedBytes(kv);
}

// A page of codes, keys then values, on its way as it is stored.
template <KvFormat kFormat>
SIMT_FUNCTION void CopyPage(const AttentionKernelArgs<Coded<kFormat>>& args,
                            const AttentionItem& item, const AttentionTiles<Coded<kFormat>>& tiles,
                            int page, int threads) {
  if (page * kPage < item.key_end) {
    const int64_t block = args.sequences[item.sequence].blocks[page];
    const unsigned char* from = CodePageAt<kFormat, KvPart::kKey>(args.kv, block, item.kv_head);
    const int bytes = CodedBytes(args.kv);
    for (int at = simt::ThreadIndex() * 16; at < bytes; at += threads * 16) {
      simt::CopyAsync16(tiles.rows, tiles.Codes(page) + at / 2, from + at);
    }
  }
  simt::CommitCopies();
}

// Zeros where the item has no key: a page may hold anything there.
template <KvPart kPart, KvFormat kFormat>
SIMT_FUNCTION void UnpackPart(const AttentionTiles<Coded<kFormat>>& tiles,
                              const AttentionItem& item, int kv_stride, int page, int threads) {
  const int pieces = kv_stride / 8;
  const int to = tiles.Page(page, kPart == KvPart::kKey ? kKeyPart : kValuePart);
  SIMT_ROLLED
  for (int i = simt::ThreadIndex(); i < kPage * pieces; i += threads) {
    const int token = i / pieces;
    const int col = i % pieces * 8;
    const int32_t key = page * kPage + token;
    const int32_t end = SIMT_MUTATE("unpack.past_the_end", item.key_end, item.key_end + 1);
    simt::Words4 numbers = {};
    if (key >= item.key_begin && key < end) {
      numbers = ReadCodes<kFormat, kPart>(tiles.rows, tiles.Codes(page), kv_stride, token, col);
    }
    tiles.rows.Store16(to + token * tiles.stride + col, numbers);
  }
}

SIMT_FUNCTION void CopyPage(const AttentionKernelArgs<simt::Bf16>& args, const AttentionItem& item,
                            const AttentionTiles<simt::Bf16>& tiles, int page, int threads) {
  const KvPages<simt::Bf16>& kv = args.kv;
  const int pieces = kv.stride / 8;
  const int32_t end = SIMT_MUTATE("attend.copies_past_the_end", item.key_end, item.key_end + 1);
  if (page * kPage < item.key_end) {
    const int64_t block = args.sequences[item.sequence].blocks[page];
    for (int i = simt::ThreadIndex(); i < 2 * kPage * pieces; i += threads) {
      const int token = i / pieces % kPage;
      const int part = i / pieces / kPage;
      const int col = i % pieces * 8;
      const int32_t key = page * kPage + token;
      const bool inside = key >= item.key_begin && key < end;
      const simt::Bf16* from =
          inside ? kv.data + PageRow(kv, block, item.kv_head, part, token) + col : kv.data;
      simt::CopyAsync16(tiles.rows, tiles.Page(page, part) + token * tiles.stride + col, from,
                        inside ? 16 : 0);
    }
  }
  simt::CommitCopies();
}

// The four quarters of the 16 x 16 tile at (row, col): upper left, lower left, upper right, lower
// right.
template <typename T>
SIMT_FUNCTION int QuarterRow(const AttentionTiles<T>& tiles, int begin, int col) {
  const int lane = simt::Lane();
  const int half = SIMT_MUTATE("attend.quarters", lane / 8 % 2, lane / 16);
  const int other = SIMT_MUTATE("attend.quarters", lane / 16, lane / 8 % 2);
  return begin + (lane % 8 + half * 8) * tiles.stride + col + other * 8;
}

// A warp's rows: lane 4 g + t has rows g and g + 8 of everything below.
struct WarpRows {
  AttentionRow row[2];
  SoftmaxState span[2];   // sums of this lane's keys alone
  SoftmaxState total[2];  // of earlier spans
};

// scores[n][i] of key n * 8 + 2 t + i % 2 and row i / 2 become weights; sums of values are to be
// multiplied by `rescale`.
SIMT_FUNCTION void WeighScores(WarpRows& warp, float scale, int32_t first_key,
                               float (&scores)[2][4], float (&rescale)[2]) {
  SIMT_UNROLL
  for (int half = 0; half < 2; ++half) {
    const AttentionRow& row = warp.row[half];
    SoftmaxState& state = warp.span[half];
    float max = state.max;
    SIMT_UNROLL
    for (int i = 0; i < 4; ++i) {
      float& score = scores[i / 2][half * 2 + i % 2];
      const int32_t key = first_key + i / 2 * 8 + simt::Lane() % 4 * 2 + i % 2;
      score = Sees(row, key) ? score * scale * GateOf(row, key) : -INFINITY;
      max = score > max ? score : max;
    }
    for (int lanes = 1; lanes <= SIMT_MUTATE("attend.max_of_half", 2, 1); lanes *= 2) {
      const float other = simt::ShuffleXor(max, lanes);
      max = other > max ? other : max;
    }
    rescale[half] = SIMT_MUTATE("attend.no_rescale", Rescale(state.max, max), 1.0f);
    state.max = max;
    state.sum *= rescale[half];
    SIMT_UNROLL
    for (int i = 0; i < 4; ++i) {
      float& score = scores[i / 2][half * 2 + i % 2];
      const int32_t key = first_key + i / 2 * 8 + simt::Lane() % 4 * 2 + i % 2;
      const float weight = score == -INFINITY ? 0.0f : simt::Exp(score - max);
      state.sum += weight;
      score = weight == 0.0f ? 0.0f : weight * GateOf(row, key);
    }
  }
}

template <int kTiles, typename T>
SIMT_FUNCTION void AttendPage(const AttentionKernelArgs<T>& args, const AttentionTiles<T>& tiles,
                              int page, WarpRows& warp, float (&sums)[2 * kTiles][4]) {
  const int used = args.kv.stride / kTile;
  const int own = simt::WarpIndex() * kAttentionTile * tiles.stride;
  float scores[2][4] = {};
  for (int tile = 0; tile < used; ++tile) {
    uint32_t q[4];
    uint32_t k[4];
    simt::LoadMatrix4(q, tiles.rows, QuarterRow(tiles, own, tile * kTile));
    const int at = tiles.Page(page, kKeyPart);
    LoadSharedRows(k, tiles.rows, tiles.stride, at / tiles.stride, tile * kTile);
    simt::MmaBf16(scores[0], q, {k[0], k[1]});
    simt::MmaBf16(scores[1], q, {k[2], k[3]});
  }
  float rescale[2];
  WeighScores(warp, args.scale, page * kPage, scores, rescale);
  uint32_t weights[4];
  SIMT_UNROLL
  for (int i = 0; i < 4; ++i) {
    const float* pair = &scores[SIMT_MUTATE("attend.weight_quarters", i / 2, i % 2)]
                               [SIMT_MUTATE("attend.weight_quarters", i % 2, i / 2) * 2];
    weights[i] = simt::PackBf16(simt::ToBf16(pair[0]), simt::ToBf16(pair[1]));
  }
  SIMT_UNROLL
  for (int tile = 0; tile < kTiles; ++tile) {
    if (tile >= used) continue;
    uint32_t v[4];
    simt::LoadMatrix4Transposed(v, tiles.rows,
                                QuarterRow(tiles, tiles.Page(page, kValuePart), tile * kTile));
    SIMT_UNROLL
    for (int n = 0; n < 2; ++n) {
      float(&sum)[4] = sums[2 * tile + n];
      SIMT_UNROLL
      for (int i = 0; i < 4; ++i) sum[i] *= rescale[i / 2];
      simt::MmaBf16(sum, weights, {v[2 * n], v[2 * n + 1]});
    }
  }
}

// Ends a span: combines it with those before, whose sums of values are in the slot, and begins the
// next one.
template <int kTiles, typename T>
SIMT_FUNCTION void EndSpan(const AttentionKernelArgs<T>& args, bool is_first, WarpRows& warp,
                           float (&sums)[2 * kTiles][4]) {
  const int quad = simt::Lane() % 4;
  const int dims = SummedDims(args.kv);
  SIMT_UNROLL
  for (int half = 0; half < 2; ++half) {
    SoftmaxState& span = warp.span[half];
    span.sum += simt::ShuffleXor(span.sum, 1);
    span.sum += simt::ShuffleXor(span.sum, SIMT_MUTATE("attend.forgets_a_lane", 2, 1));
    const CombineFactors factors = Combine(warp.total[half], span);
    float* slot = warp.row[half].partial;
    SIMT_UNLESS("attend.span_goes_on") span = {};
    if (slot == nullptr) continue;
    SIMT_UNROLL
    for (int n = 0; n < 2 * kTiles; ++n) {
      SIMT_UNROLL
      for (int i = 0; i < 2; ++i) {
        const int col = n * 8 + quad * 2 + i;
        if (col >= dims) continue;
        const float before = is_first ? 0.0f : slot[col];
        slot[col] = before * factors.before + sums[n][half * 2 + i] * factors.own;
      }
    }
    if (quad == 0) slot[dims] = warp.total[half].max;
    if (quad == 0) slot[dims + 1] = warp.total[half].sum;
  }
  SIMT_UNROLL
  for (int n = 0; n < 2 * kTiles; ++n) {
    for (int i = 0; i < 4; ++i) sums[n][i] = 0.0f;
  }
}

// Rows of q of this warp, rounded, zeros where there is none; turned where keys are.
template <typename T>
SIMT_FUNCTION void StageQueries(const AttentionKernelArgs<T>& args, const AttentionItem& item,
                                const AttentionTiles<T>& tiles) {
  const int first = simt::WarpIndex() * kAttentionTile;
  for (int r = 0; r < kAttentionTile; ++r) {
    const float* q = RowOfItem(args, item, first + r).q;
    for (int i = simt::Lane(); i < args.kv.stride; i += simt::kWarpThreads) {
      float value = q != nullptr && i < args.kv.dim ? q[i] : 0.0f;
      if constexpr (kIsTurned<T>) {  // by the keys' groups of 32: a warp has one
        float none = 0.0f;
        TurnGroup(value, none, /*has_high=*/false);
        value *= SIMT_MUTATE("attend.turned_query", 8.0f / 32.0f, 8.0f / 64.0f);
      }
      tiles.rows.Store((first + r) * tiles.stride + i, simt::ToBf16(value));
    }
  }
}

// kTiles: 16 dimensions each, as many as the pages' stride has or more. kWarps: of the block.
template <int kTiles, int kWarps, typename T>
SIMT_KERNEL(kWarps* simt::kWarpThreads)
void AttendPages(AttentionKernelArgs<T> args) {
  constexpr int kThreads = kWarps * simt::kWarpThreads;
  const AttentionItem item = args.items[simt::BlockIndex()];
  const int stride = args.kv.stride + 8;
  const AttentionTiles<T> tiles{
      simt::DynamicShared<simt::Bf16>(0, AttentionSharedBytes(kWarps, args.kv) / 2), stride,
      kWarps * kAttentionTile * stride, CodedBytes(args.kv) / 2};
  StageQueries(args, item, tiles);
  const int first = simt::WarpIndex() * kAttentionTile + simt::Lane() / 4;
  WarpRows warp;
  warp.row[0] = RowOfItem(args, item, first);
  warp.row[1] = RowOfItem(args, item, first + 8);
  float sums[2 * kTiles][4] = {};
  const int begin = item.key_begin / kPage;
  const int end = (item.key_end + kPage - 1) / kPage;
  bool is_first = true;
  for (int page = begin; page < begin + kPageStages - 1; ++page) {
    CopyPage(args, item, tiles, page, kThreads);
  }
  for (int page = begin; page < end; ++page) {
    SIMT_UNLESS("attend.no_wait") simt::WaitCopies<kPageStages - 2>();
    SIMT_UNLESS("attend.no_barrier") simt::BlockBarrier();
    const int ahead = SIMT_MUTATE("attend.copies_too_early", kPageStages - 1, kPageStages);
    CopyPage(args, item, tiles, page + ahead, kThreads);
    if constexpr (kIsCoded<T>) {
      UnpackPart<KvPart::kKey>(tiles, item, args.kv.stride, page, kThreads);
      UnpackPart<KvPart::kValue>(tiles, item, args.kv.stride, page, kThreads);
      SIMT_UNLESS("unpack.no_barrier") simt::BlockBarrier();
    }
    if (simt::WarpIndex() * kAttentionTile >= item.rows) continue;
    AttendPage<kTiles>(args, tiles, page, warp, sums);
    if (page + 1 == end || (page + 1) * kPage % kAttentionSpan == 0) {
      EndSpan<kTiles>(args, is_first, warp, sums);
      is_first = false;
    }
  }
  simt::WaitCopies<0>();
}

// Combines the slots of a token's heads in order and divides by the sum of weights.
template <typename T>
SIMT_KERNEL(kBlockThreads)
void MergeSlots(const MergeItem* items, const float* partials, int dim, DeviceRows<T> out) {
  const MergeItem item = items[simt::BlockIndex()];
  for (int64_t col = simt::ThreadIndex(); col < out.cols; col += kBlockThreads) {
    const float* slot = partials + (item.partial + col / dim * item.slots) * (dim + 2);
    SoftmaxState total;
    float sum = 0.0f;
    const int slots = SIMT_MUTATE("merge.forgets_a_slot", item.slots, (item.slots + 1) / 2);
    for (int i = 0; i < slots; ++i, slot += dim + 2) {
      const CombineFactors factors = Combine(total, {slot[dim], slot[dim + 1]});
      sum = sum * factors.before + slot[col % dim] * factors.own;
    }
    out.data[item.row * out.stride + col] = simt::FromFloat<T>(sum / total.sum);
  }
}

// Likewise of sums of turned values, `stride` of a head, of which `dim` are left once they are
// turned back. A warp to a group of a head: a lane has one column and that 32 further.
SIMT_KERNEL(kBlockThreads)
void MergeTurnedSlots(const MergeItem* items, const float* partials, int dim, int stride,
                      DeviceRows<simt::Bf16> out) {
  constexpr int kGroup = kGroupSize<KvFormat::kInt4, KvPart::kValue>;
  const MergeItem item = items[simt::BlockIndex()];
  const int groups = (stride + kGroup - 1) / kGroup;
  const int num_groups = static_cast<int>(out.cols / dim) * groups;
  for (int at = simt::WarpIndex(); at < num_groups; at += kBlockWarps) {
    const int head = at / groups;
    const int col = at % groups * kGroup + simt::Lane();
    const bool has_high = at % groups * kGroup + kGroup <= stride;
    const float* slot =
        partials + (item.partial + static_cast<int64_t>(head) * item.slots) * (stride + 2);
    SoftmaxState total;
    float low = 0.0f;
    float high = 0.0f;
    for (int i = 0; i < item.slots; ++i, slot += stride + 2) {
      const CombineFactors factors = Combine(total, {slot[stride], slot[stride + 1]});
      low = low * factors.before + slot[col] * factors.own;
      if (has_high) high = high * factors.before + slot[col + 32] * factors.own;
    }
    TurnGroup(low, high, has_high);
    const float factor =
        SIMT_MUTATE("merge.turned_factor", has_high, true) ? 8.0f / 64.0f : 8.0f / 32.0f;
    simt::Bf16* to = out.data + item.row * out.stride + static_cast<int64_t>(head) * dim;
    if (col < dim) to[col] = simt::ToBf16(low * factor / total.sum);
    if (has_high && col + 32 < dim) to[col + 32] = simt::ToBf16(high * factor / total.sum);
  }
}

template <int kTiles, typename T>
void LaunchAttendPages(const AttentionPlan& plan, AttentionKernelArgs<T> args,
                       simt::Stream stream) {
  const auto num_many = static_cast<int64_t>(plan.items.size()) - plan.num_few;
  if (plan.num_few > 0) {
    simt::Launch({plan.num_few, simt::kWarpThreads, AttentionSharedBytes(1, args.kv)}, stream,
                 AttendPages<kTiles, 1, T>, args);
  }
  args.items += plan.num_few;
  if (num_many > 0) {
    simt::Launch({num_many, kAttentionWarps * simt::kWarpThreads,
                  AttentionSharedBytes(kAttentionWarps, args.kv)},
                 stream, AttendPages<kTiles, kAttentionWarps, T>, args);
  }
}

template <typename T>
void LaunchAttend(const AttentionPlan& plan, const AttentionKernelArgs<T>& args,
                  simt::Stream stream) {
  if (args.kv.stride <= 64) {
    LaunchAttendPages<4>(plan, args, stream);
  } else if (args.kv.stride <= 128) {
    LaunchAttendPages<8>(plan, args, stream);
  } else {
    LaunchAttendPages<kMaxHeadDim / kTile>(plan, args, stream);
  }
}

inline void LaunchAttend(const AttentionPlan& plan, const AttentionKernelArgs<float>& args,
                         simt::Stream stream) {
  simt::Launch({static_cast<int64_t>(plan.items.size()), kBlockThreads}, stream, AttendExact, args);
}

// The arrays of `args` are the plan's, in device memory, as `merges` are.
template <typename T, typename Out>
void LaunchAttention(const AttentionPlan& plan, const AttentionKernelArgs<T>& args,
                     const MergeItem* merges, DeviceRows<Out> out, simt::Stream stream) {
  LaunchAttend(plan, args, stream);
  const simt::LaunchShape shape{static_cast<int64_t>(plan.merges.size()), kBlockThreads};
  if constexpr (kIsTurned<T>) {
    simt::Launch(shape, stream, MergeTurnedSlots, merges, args.partials, args.kv.dim,
                 args.kv.stride, out);
  } else {
    simt::Launch(shape, stream, MergeSlots<Out>, merges, args.partials, args.kv.dim, out);
  }
}

}  // namespace polyad::cuda
