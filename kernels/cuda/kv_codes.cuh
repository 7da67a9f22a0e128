#pragma once

// Keys and values as codes (kernels/api/kv_codes.h) in device memory, how a warp writes them and
// how a lane reads them from shared memory. For each block and kv head a page of keys, then one of
// values. A page is the codes of 16 tokens, a row of `stride` each (int4: 4 bits each, the lower
// column in the lower half of a byte); of int4's keys then a row of fifth bits for each token; then
// for each token its groups' scale and low, bf16 both. `stride` is the head dim up to a multiple of
// 16, of 32 for int4, whose groups lie turned. A page is a multiple of 16 bytes. A token's bytes
// are its own.

#include "kernels/api/kv_codes.h"
#include "kernels/cuda/device_rows.h"
#include "kernels/cuda/kv_pages.cuh"
#include "kernels/simt/simt.h"

namespace polyad::cuda {

// In the place of an element's type.
template <KvFormat kFormat>
struct Coded {};

template <KvFormat kFormat>
struct KvPages<Coded<kFormat>> {
  unsigned char* data = nullptr;
  int32_t num_kv_heads = 0;
  int32_t dim = 0;
  int32_t stride = 0;
};

template <typename T>
inline constexpr bool kIsCoded = false;
template <KvFormat kFormat>
inline constexpr bool kIsCoded<Coded<kFormat>> = true;
template <typename T>
inline constexpr bool kIsTurned = false;
template <>
inline constexpr bool kIsTurned<Coded<KvFormat::kInt4>> = true;

// kernels/api/kv_codes.h's, for kernels.
template <KvFormat kFormat, KvPart kPart>
inline constexpr int kGroupSize = static_cast<int>(GroupSizeOf(kFormat, kPart));
template <KvFormat kFormat, KvPart kPart>
inline constexpr float kTopCode = static_cast<float>(TopCodeOf(kFormat, kPart));

// How many numbers of a head's output attention adds up: turned ones are as many as are stored.
template <typename T>
SIMT_HOST_DEVICE int SummedDims(const KvPages<T>& kv) {
  return kIsTurned<T> ? kv.stride : kv.dim;
}

// Where things lie within a page of codes, in bytes.
struct CodePage {
  int row;       // of a token's codes
  int fifths;    // where fifth bits begin; a row of them is stride / 8
  int scalings;  // where they begin
  int groups;    // of a token
  int bytes;
};

SIMT_HOST_DEVICE CodePage CodePageOf(KvFormat format, int stride, KvPart part) {
  CodePage page = {};
  const int tokens = static_cast<int>(kBlockTokens);
  const bool turned = format == KvFormat::kInt4;
  const int group = turned && part == KvPart::kKey ? 32 : static_cast<int>(kKvGroup);
  page.row = turned ? stride / 2 : stride;
  page.fifths = tokens * page.row;
  page.scalings = page.fifths + (turned && part == KvPart::kKey ? tokens * stride / 8 : 0);
  page.groups = (stride + group - 1) / group;
  page.bytes = (page.scalings + tokens * page.groups * 4 + 15) / 16 * 16;
  return page;
}

// Of one kv head of a block: keys and values.
SIMT_HOST_DEVICE int CodedHeadBytes(KvFormat format, int stride) {
  return CodePageOf(format, stride, KvPart::kKey).bytes +
         CodePageOf(format, stride, KvPart::kValue).bytes;
}

template <KvFormat kFormat, KvPart kPart>
SIMT_FUNCTION unsigned char* CodePageAt(const KvPages<Coded<kFormat>>& kv, int64_t block,
                                        int head) {
  unsigned char* keys = kv.data + (block * kv.num_kv_heads + head) *
                                      static_cast<int64_t>(CodedHeadBytes(kFormat, kv.stride));
  return kPart == KvPart::kKey ? keys : keys + CodePageOf(kFormat, kv.stride, KvPart::kKey).bytes;
}

// x <- H x of a group whose number `lane` is `low`, and `lane + 32` where the group has 64 `high`.
SIMT_FUNCTION void TurnGroup(float& low, float& high, bool has_high) {
  if (has_high) {
    const float sum = low + high;
    high = SIMT_MUTATE("kv_codes.turn_sign", low - high, high - low);
    low = sum;
  }
  const int last = SIMT_MUTATE("kv_codes.turn_stops_early", 1, 2);
  for (int distance = 16; distance >= last; distance /= 2) {
    const bool is_second = (simt::Lane() & distance) != 0;
    const float other_low = simt::ShuffleXor(low, distance);
    const float other_high = simt::ShuffleXor(high, distance);
    low = is_second ? other_low - low : low + other_low;
    high = is_second ? other_high - high : high + other_high;
  }
}

inline constexpr uint16_t kBf16Nan = 0x7fc0;

SIMT_FUNCTION bool IsFinite(float x) { return (simt::BitsOfFloat(x) & 0x7f800000u) != 0x7f800000u; }

// The nearest bf16 number that is not above x; NaN of what is not finite.
SIMT_FUNCTION simt::Bf16 Bf16Down(float x) {
  if (!IsFinite(x)) return {kBf16Nan};
  const simt::Bf16 nearest = simt::ToBf16(x);
  if (simt::ToFloat(nearest) <= x) return nearest;
  return {static_cast<uint16_t>(x < 0 ? nearest.bits + 1 : nearest.bits - 1)};
}
SIMT_FUNCTION simt::Bf16 Bf16Up(float x) {
  const simt::Bf16 down = Bf16Down(-x);
  return down.bits == kBf16Nan ? down : simt::Bf16{static_cast<uint16_t>(down.bits ^ 0x8000u)};
}

// Of numbers from 0 to 2^22, ties to even.
SIMT_FUNCTION float RoundToEven(float x) { return (x + 0x1p23f) - 0x1p23f; }

struct GroupScaling {
  simt::Bf16 scale;
  simt::Bf16 low;
};

// Of a group whose least and largest numbers are these.
SIMT_FUNCTION GroupScaling ScalingOf(float least, float largest, bool finite, float top) {
  if (!finite) return {{kBf16Nan}, {kBf16Nan}};
  const simt::Bf16 low = Bf16Down(least);
  const float exact = (largest - simt::ToFloat(low)) / top;
  if (exact < kLeastKvScale) return {{0}, low};
  return {Bf16Up(exact), low};
}

SIMT_FUNCTION uint32_t CodeOf(float x, const GroupScaling& scaling, float top) {
  const float scale = simt::ToFloat(scaling.scale);
  if (!(scale > 0.0f)) return 0;
  const float code = RoundToEven((x - simt::ToFloat(scaling.low)) * (1.0f / scale));
  return static_cast<uint32_t>(code < top ? code : top);
}

// Writes the codes of a warp's 32 columns from `col` on; those past `end` are nobody's.
template <KvFormat kFormat, KvPart kPart>
SIMT_FUNCTION void StoreCodes(unsigned char* page, const CodePage& layout, int token, int col,
                              int end, uint32_t code) {
  const int own = col + simt::Lane();
  unsigned char* row = page + token * layout.row;
  if constexpr (kFormat == KvFormat::kInt8) {
    if (own < end) row[own] = static_cast<unsigned char>(code);
    return;
  }
  const uint32_t next = simt::ShuffleXor(code, 1);
  if (simt::Lane() % 2 == 0 && own < end) {
    row[own / 2] = static_cast<unsigned char>((code & 15u) | (next & 15u) << 4);
  }
  if constexpr (kPart == KvPart::kKey) {
    const uint32_t fifths = simt::Ballot((code & 16u) != 0);
    unsigned char* to = page + layout.fifths + token * (layout.row / 4) + col / 8;
    if (simt::Lane() < 4) to[simt::Lane()] = static_cast<unsigned char>(fifths >> 8 * simt::Lane());
  }
}

// A warp's: one token's k or v of one head, dim numbers, into its place.
template <KvFormat kFormat, KvPart kPart, typename Numbers>
SIMT_FUNCTION void EncodeHead(const KvPages<Coded<kFormat>>& kv, int64_t block, int head, int token,
                              const Numbers& number) {
  constexpr bool kTurned = kFormat == KvFormat::kInt4;
  constexpr int kGroup = kGroupSize<kFormat, kPart>;
  constexpr float kTop = kTopCode<kFormat, kPart>;
  const CodePage layout = CodePageOf(kFormat, kv.stride, kPart);
  unsigned char* page = CodePageAt<kFormat, kPart>(kv, block, head);
  const int lane = simt::Lane();
  for (int group = 0; group < layout.groups; ++group) {
    const int first = group * kGroup;
    const int stored = kv.stride - first < kGroup ? kv.stride - first : kGroup;
    const int meant = kTurned ? stored : (kv.dim - first < kGroup ? kv.dim - first : kGroup);
    float low = first + lane < kv.dim ? number(first + lane) : 0.0f;
    float high = stored > 32 && first + 32 + lane < kv.dim ? number(first + 32 + lane) : 0.0f;
    if constexpr (kTurned) {
      TurnGroup(low, high, stored > 32);
      low *= 0.125f;
      high *= 0.125f;
    }
    const bool has_low = lane < meant;
    const bool has_high = lane + 32 < meant;
    const bool finite = (!has_low || IsFinite(low)) && (!has_high || IsFinite(high));
    float least = has_low ? low : INFINITY;
    float largest = has_low ? low : -INFINITY;
    if (has_high && high < least) least = high;
    if (has_high && high > largest) largest = high;
    for (int lanes = 16; lanes > 0; lanes /= 2) {
      const float other_least = simt::ShuffleXor(least, lanes);
      const float other_largest = simt::ShuffleXor(largest, lanes);
      least = other_least < least ? other_least : least;
      largest = other_largest > largest ? other_largest : largest;
    }
    const bool all_finite = simt::Ballot(!finite) == 0;
    const GroupScaling scaling = ScalingOf(least, largest, all_finite, kTop);
    StoreCodes<kFormat, kPart>(page, layout, token, first, first + stored,
                               has_low ? CodeOf(low, scaling, kTop) : 0u);
    if (stored > 32) {
      StoreCodes<kFormat, kPart>(page, layout, token, first + 32, first + stored,
                                 has_high ? CodeOf(high, scaling, kTop) : 0u);
    }
    if (lane == 0) {
      auto* to = reinterpret_cast<uint32_t*>(page + layout.scalings);
      to[token * layout.groups + group] = simt::PackBf16(scaling.scale, scaling.low);
    }
  }
}

// Eight numbers from column `col` of a token on, turned ones as they lie, rounded to bf16. `codes`:
// where the head's page of keys begins in the shared `pages`, in elements of two bytes.
template <KvFormat kFormat, KvPart kPart>
SIMT_FUNCTION simt::Words4 ReadCodes(const simt::SharedArray<simt::Bf16>& pages, int codes,
                                     int stride, int token, int col) {
  constexpr int kGroup = kGroupSize<kFormat, kPart>;
  constexpr bool kHalfBytes = kFormat == KvFormat::kInt4;
  const CodePage layout = CodePageOf(kFormat, stride, kPart);
  const int page =
      kPart == KvPart::kKey ? codes : codes + CodePageOf(kFormat, stride, KvPart::kKey).bytes / 2;
  const auto word = [&](int at) { return pages.Load4(page + at / 2); };
  const int group = SIMT_MUTATE("kv_codes.group_of_column", col / kGroup, 0);
  const uint32_t scaling = word(layout.scalings + (token * layout.groups + group) * 4);
  const float scale = simt::ToFloat(simt::Bf16{static_cast<uint16_t>(scaling & 0xffffu)});
  const float low = simt::ToFloat(simt::Bf16{static_cast<uint16_t>(scaling >> 16)});
  const int first = token * layout.row + (kHalfBytes ? col / 2 : col);
  uint32_t words[2] = {word(first), 0};
  if constexpr (!kHalfBytes) words[1] = word(first + 4);
  uint32_t fifths = 0;
  if constexpr (kHalfBytes && kPart == KvPart::kKey) {
    const int row = layout.fifths + token * (layout.row / 4);
    fifths = SIMT_MUTATE("kv_codes.no_fifth_bit", word(row + col / 32 * 4) >> col % 32, 0u);
  }
  simt::Words4 numbers;
  SIMT_UNROLL
  for (int pair = 0; pair < 4; ++pair) {
    simt::Bf16 two[2];
    SIMT_UNROLL
    for (int i = 0; i < 2; ++i) {
      const int at = pair * 2 + i;
      const uint32_t code = kHalfBytes ? (words[0] >> at * 4 & 15u) | (fifths >> at & 1u) << 4
                                       : words[at / 4] >> at % 4 * 8 & 255u;
      two[i] = simt::ToBf16(simt::Fma(scale, static_cast<float>(code), low));
    }
    numbers.word[pair] = simt::PackBf16(two[0], two[1]);
  }
  return numbers;
}

}  // namespace polyad::cuda
