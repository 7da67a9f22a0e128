#include "kernels/cpu/panel_tiles.h"

#include <algorithm>
#include <cstring>

#include "kernels/cpu/gemm_kernels.h"
#include "kernels/cpu/number_format.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace polyad::cpu {
namespace {

constexpr int64_t kUnitBytes = 4;

// Where a tile's numbers come from, and how they become `Element`s.
template <typename Source>
struct Rows {
  const Source* numbers;
  float scale;
  int64_t in;
};

uint16_t Narrowed(float value, float scale) {
  return ToBf16(scale == 1.0f ? value : value * scale);
}
uint16_t Narrowed(uint16_t value, float scale) {
  return scale == 1.0f ? value : ToBf16(FromBf16(value) * scale);
}

void Convert(const float* from, float, int64_t count, float* to) {
  std::memcpy(to, from, static_cast<size_t>(count) * sizeof(float));
}
template <typename Source>
void Convert(const Source* from, float scale, int64_t count, uint16_t* to) {
  for (int64_t i = 0; i < count; ++i) to[i] = Narrowed(from[i], scale);
}

// to[unit][column] = unit `unit` of row first + column, numbers [k, k + depth) of each.
template <typename Element, typename Source>
void TurnTile(const Rows<Source>& rows, int64_t first, int64_t width, int64_t k, int64_t depth,
              char* to) {
  constexpr int64_t kPerUnit = kUnitBytes / sizeof(Element);
  const int64_t units = (depth + kPerUnit - 1) / kPerUnit;
  for (int64_t column = 0; column < width; ++column) {
    Element numbers[kDepthBlock];
    numbers[units * kPerUnit - 1] = 0;  // the second of an odd depth's last pair
    Convert(rows.numbers + (first + column) * rows.in + k, rows.scale, depth, numbers);
    for (int64_t unit = 0; unit < units; ++unit) {
      std::memcpy(to + (unit * width + column) * kUnitBytes, numbers + unit * kPerUnit, kUnitBytes);
    }
  }
}

#if defined(__x86_64__)
#define POLYAD_WIDE __attribute__((target("avx512f,avx512bw")))

POLYAD_WIDE inline __mmask16 First(int64_t count) {
  return static_cast<__mmask16>((1u << std::clamp<int64_t>(count, 0, 16)) - 1u);
}

// As ToBf16.
POLYAD_WIDE inline __m256i Narrow(__m512 values) {
  const __m512i bits = _mm512_castps_si512(values);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __mmask16 nan = _mm512_cmp_ps_mask(values, values, _CMP_UNORD_Q);
  const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  const __m512i kept = _mm512_mask_mov_epi32(rounded, nan, quiet);
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(kept, 16));
}

POLYAD_WIDE inline __m512i Pair(__m256i low, __m256i high) {
  return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

// Up to 16 units of bf16 pairs from `depth` numbers; zeros after them.
POLYAD_WIDE inline __m512i LoadPairs(const float* from, float scale, int64_t depth) {
  const __m512 by = _mm512_set1_ps(scale);
  const __m512 low = _mm512_maskz_loadu_ps(First(depth), from);
  const __m512 high = _mm512_maskz_loadu_ps(First(depth - 16), from + 16);
  return Pair(Narrow(_mm512_mul_ps(low, by)), Narrow(_mm512_mul_ps(high, by)));
}

POLYAD_WIDE inline __m512i LoadPairs(const uint16_t* from, float scale, int64_t depth) {
  const auto mask = static_cast<__mmask32>((uint64_t{1} << depth) - 1);
  const __m512i stored = _mm512_maskz_loadu_epi16(mask, from);
  if (scale == 1.0f) return stored;
  const __m512 by = _mm512_set1_ps(scale);
  const __m512i low = _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(stored)), 16);
  const __m512i high =
      _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(stored, 1)), 16);
  return Pair(Narrow(_mm512_mul_ps(_mm512_castsi512_ps(low), by)),
              Narrow(_mm512_mul_ps(_mm512_castsi512_ps(high), by)));
}

// rows[i][j] -> rows[j][i], of 16 by 16 units: pairs, fours, then quarters of a register.
POLYAD_WIDE inline void Turn(__m512i rows[16]) {
  __m512i pairs[16];
  for (int i = 0; i < 16; i += 2) {
    pairs[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
    pairs[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
  }
  __m512i fours[16];  // fours[4 g + c]: unit 4 q + c of rows 4 g to 4 g + 3, in quarter q
  for (int g = 0; g < 16; g += 4) {
    fours[g] = _mm512_unpacklo_epi64(pairs[g], pairs[g + 2]);
    fours[g + 1] = _mm512_unpackhi_epi64(pairs[g], pairs[g + 2]);
    fours[g + 2] = _mm512_unpacklo_epi64(pairs[g + 1], pairs[g + 3]);
    fours[g + 3] = _mm512_unpackhi_epi64(pairs[g + 1], pairs[g + 3]);
  }
  for (int c = 0; c < 4; ++c) {
    const __m512i low02 = _mm512_shuffle_i32x4(fours[c], fours[4 + c], 0x88);
    const __m512i low13 = _mm512_shuffle_i32x4(fours[c], fours[4 + c], 0xdd);
    const __m512i high02 = _mm512_shuffle_i32x4(fours[8 + c], fours[12 + c], 0x88);
    const __m512i high13 = _mm512_shuffle_i32x4(fours[8 + c], fours[12 + c], 0xdd);
    rows[c] = _mm512_shuffle_i32x4(low02, high02, 0x88);
    rows[4 + c] = _mm512_shuffle_i32x4(low13, high13, 0x88);
    rows[8 + c] = _mm512_shuffle_i32x4(low02, high02, 0xdd);
    rows[12 + c] = _mm512_shuffle_i32x4(low13, high13, 0xdd);
  }
}

POLYAD_WIDE inline void StoreUnits(__m512i units[16], int64_t count, int64_t width, char* to) {
  Turn(units);
  const __mmask16 mask = First(width);
  for (int64_t unit = 0; unit < count; ++unit, to += width * kUnitBytes) {
    _mm512_mask_storeu_epi32(to, mask, units[unit]);
  }
}

template <typename Element, typename Source>
POLYAD_WIDE void TurnTileWide(const Rows<Source>& rows, int64_t first, int64_t width, int64_t k,
                              int64_t depth, char* to) {
  const Source* from = rows.numbers + first * rows.in + k;
  __m512i units[16];
  if constexpr (sizeof(Element) == kUnitBytes) {
    for (int64_t begin = 0; begin < depth; begin += 16) {
      for (int64_t column = 0; column < 16; ++column) {
        units[column] = column >= width ? _mm512_setzero_si512()
                                        : _mm512_maskz_loadu_epi32(First(depth - begin),
                                                                   from + column * rows.in + begin);
      }
      StoreUnits(units, std::min<int64_t>(16, depth - begin), width, to);
      to += 16 * width * kUnitBytes;
    }
  } else {
    for (int64_t column = 0; column < 16; ++column) {
      units[column] = column >= width ? _mm512_setzero_si512()
                                      : LoadPairs(from + column * rows.in, rows.scale, depth);
    }
    StoreUnits(units, (depth + 1) / 2, width, to);
  }
}
#else
template <typename Element, typename Source>
void TurnTileWide(const Rows<Source>& rows, int64_t first, int64_t width, int64_t k, int64_t depth,
                  char* to) {
  TurnTile<Element>(rows, first, width, k, depth, to);
}
#endif

template <typename Element, typename Source>
void WriteTiles(const Rows<Source>& rows, int64_t columns, bool wide, char* panel) {
  constexpr int64_t kPerUnit = kUnitBytes / sizeof(Element);
  for (int64_t k = 0; k < rows.in; k += kDepthBlock) {
    const int64_t depth = std::min(kDepthBlock, rows.in - k);
    const int64_t units = (depth + kPerUnit - 1) / kPerUnit;
    for (int64_t first = 0; first < columns; first += kTileColumns) {
      const int64_t width = std::min(kTileColumns, columns - first);
      if (wide) {
        TurnTileWide<Element>(rows, first, width, k, depth, panel);
      } else {
        TurnTile<Element>(rows, first, width, k, depth, panel);
      }
      panel += units * width * kUnitBytes;
    }
  }
}

}  // namespace

void WriteFloatTiles(const float* rows, int64_t in, int64_t columns, char* panel, bool wide) {
  WriteTiles<float>(Rows<float>{rows, 1.0f, in}, columns, wide, panel);
}

void WriteBf16Tiles(const float* rows, int64_t in, int64_t columns, char* panel, bool wide) {
  WriteTiles<uint16_t>(Rows<float>{rows, 1.0f, in}, columns, wide, panel);
}

void WriteBf16Tiles(const uint16_t* rows, float scale, int64_t in, int64_t columns, char* panel,
                    bool wide) {
  WriteTiles<uint16_t>(Rows<uint16_t>{rows, scale, in}, columns, wide, panel);
}

}  // namespace polyad::cpu
