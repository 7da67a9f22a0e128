#include <immintrin.h>

#include "kernels/cpu/gemm_kernels.h"

// The arithmetic of TDPBF16PS in 512-bit registers, for one or two rows: a tile is mostly air
// there, and the latency of tile dots shows in small products (an adapter's factors). Per block of
// 32 inputs the even and the odd inputs form a chain of fused multiply-adds each, from zero; then
// sum += even + odd; subnormals count as zero (Intel SDM volume 2C, "TDPBF16PS"). gemm_test holds
// rows computed here to the bits of rows computed on tiles.

namespace polyad::cpu {
namespace {

constexpr int64_t kPrefetchBytes = 2048;
constexpr int64_t kPairs = kDepthBlock / 2;

// A row's block as fp32: 16 even inputs, then 16 odd ones.
void Widen(const PanelTask& task, int64_t row, float* wide) {
  const uint16_t* x = static_cast<const uint16_t*>(task.x) + row * task.x_stride;
  const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
  for (int64_t block = 0; block < task.depth; block += kDepthBlock) {
    const __m512i pairs = _mm512_loadu_si512(x + block);
    _mm512_store_ps(wide + block, _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)));
    _mm512_store_ps(wide + block + kPairs, _mm512_castsi512_ps(_mm512_and_si512(pairs, upper)));
  }
}

template <int kRows, int kTiles>
struct Sums {
  __m512 even[kRows][kTiles];
  __m512 odd[kRows][kTiles];
};

template <int kRows, int kTiles>
inline Sums<kRows, kTiles> ZeroSums() {
  Sums<kRows, kTiles> sums;
  POLYAD_UNROLL
  for (int r = 0; r < kRows; ++r) {
    POLYAD_UNROLL
    for (int t = 0; t < kTiles; ++t) sums.even[r][t] = sums.odd[r][t] = _mm512_setzero_ps();
  }
  return sums;
}

template <bool kRagged>
inline __m512i LoadWeights(const char* at, __mmask16 mask) {
  return kRagged ? _mm512_maskz_loadu_epi32(mask, at) : _mm512_loadu_si512(at);
}

template <int kRows, int kTiles>
inline void AddPair(const float* const* x, const __m512i* w, Sums<kRows, kTiles>* sums) {
  const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
  POLYAD_UNROLL
  for (int t = 0; t < kTiles; ++t) {
    const __m512 even = _mm512_castsi512_ps(_mm512_slli_epi32(w[t], 16));
    const __m512 odd = _mm512_castsi512_ps(_mm512_and_si512(w[t], upper));
    POLYAD_UNROLL
    for (int r = 0; r < kRows; ++r) {
      sums->even[r][t] = _mm512_fmadd_ps(_mm512_set1_ps(x[r][0]), even, sums->even[r][t]);
      sums->odd[r][t] = _mm512_fmadd_ps(_mm512_set1_ps(x[r][kPairs]), odd, sums->odd[r][t]);
    }
  }
}

struct Columns {
  int64_t width[2];
  __mmask16 mask[2];
};

inline void StoreSums(const PanelTask& task, int64_t row, int64_t column, __mmask16 mask,
                      __m512 sum) {
  float* y = task.y + row * task.y_stride + column;
  if (task.bias != nullptr)
    sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, task.bias + column));
  if (task.accumulate) sum = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, y), sum);
  _mm512_mask_storeu_ps(y, mask, sum);
}

template <int kRows, int kTiles>
using Totals = __m512[kRows][kTiles];

// Adds kBlocks whole blocks of full tiles: their chains run side by side, their sums add in order.
// `fetch` is where to fetch from while this is read, line by line.
template <int kRows, int kTiles, int kBlocks, bool kAhead>
inline void AddBlocks(const char* panel, const char* fetch, const float* const* x,
                      Totals<kRows, kTiles>& totals) {
  constexpr int64_t kTile = kPairs * 64;
  Sums<kRows, kTiles> sums[kBlocks];
  POLYAD_UNROLL
  for (int b = 0; b < kBlocks; ++b) sums[b] = ZeroSums<kRows, kTiles>();
  for (int64_t pair = 0; pair < kPairs; ++pair) {
    POLYAD_UNROLL
    for (int b = 0; b < kBlocks; ++b) {
      __m512i w[kTiles];
      const float* at[kRows];
      POLYAD_UNROLL
      for (int t = 0; t < kTiles; ++t) {
        const int64_t line = (b * kTiles + t) * kTile + pair * 64;
        w[t] = _mm512_loadu_si512(panel + line);
        _mm_prefetch(fetch + line, kAhead ? _MM_HINT_T1 : _MM_HINT_T0);
      }
      POLYAD_UNROLL
      for (int r = 0; r < kRows; ++r) at[r] = x[r] + b * kDepthBlock + pair;
      AddPair<kRows, kTiles>(at, w, &sums[b]);
    }
  }
  POLYAD_UNROLL
  for (int b = 0; b < kBlocks; ++b) {
    POLYAD_UNROLL
    for (int r = 0; r < kRows; ++r) {
      POLYAD_UNROLL
      for (int t = 0; t < kTiles; ++t) {
        totals[r][t] =
            _mm512_add_ps(totals[r][t], _mm512_add_ps(sums[b].even[r][t], sums[b].odd[r][t]));
      }
    }
  }
}

// One block of any width and depth.
template <int kRows, int kTiles, bool kRagged>
inline Sums<kRows, kTiles> SumBlock(const char* panel, int64_t pairs, const Columns& columns,
                                    const char* fetch, const float* const* x) {
  const int64_t stride0 = kRagged ? columns.width[0] * 4 : 64;
  const int64_t stride1 = kRagged ? columns.width[1] * 4 : 64;
  const char* second = panel + pairs * stride0;
  Sums<kRows, kTiles> sums = ZeroSums<kRows, kTiles>();
  for (int64_t pair = 0; pair < pairs; ++pair) {
    __m512i w[2];
    const float* at[kRows];
    w[0] = LoadWeights<kRagged>(panel + pair * stride0, columns.mask[0]);
    if (kTiles == 2) w[1] = LoadWeights<kRagged>(second + pair * stride1, columns.mask[1]);
    _mm_prefetch(fetch + pair * 64, _MM_HINT_T1);
    if (kTiles == 2) _mm_prefetch(fetch + (pairs + pair) * 64, _MM_HINT_T1);
    POLYAD_UNROLL
    for (int r = 0; r < kRows; ++r) at[r] = x[r] + pair;
    AddPair<kRows, kTiles>(at, w, &sums);
  }
  return sums;
}

template <int kRows, int kTiles, bool kRagged, bool kAhead>
void SumPanel(const PanelTask& task, const char* panel, const Columns& columns, const float* wide,
              int64_t column) {
  constexpr int kAtOnce = kRagged || kRows * kTiles == 4 ? 1 : 4 / (kRows * kTiles);
  constexpr int64_t kBytes = kTiles * kPairs * 64;
  const int64_t padded = (task.depth + kDepthBlock - 1) / kDepthBlock * kDepthBlock;
  const bool onto_sink = StartsOnSink(task);
  Totals<kRows, kTiles> totals;
  const float* x[kRows];
  POLYAD_UNROLL
  for (int r = 0; r < kRows; ++r) {
    x[r] = wide + r * padded;
    POLYAD_UNROLL
    for (int t = 0; t < kTiles; ++t) totals[r][t] = _mm512_setzero_ps();
  }
  int64_t block = 0;
  if (!kRagged && !onto_sink) {
    for (; block + kAtOnce * kDepthBlock <= task.depth; block += kAtOnce * kDepthBlock) {
      const char* fetch = kAhead ? Advance(task.ahead, kAtOnce * kBytes) : panel + kPrefetchBytes;
      AddBlocks<kRows, kTiles, kAtOnce, kAhead>(panel, fetch, x, totals);
      panel += kAtOnce * kBytes;
      POLYAD_UNROLL
      for (int r = 0; r < kRows; ++r) x[r] += kAtOnce * kDepthBlock;
    }
  }
  for (; block < task.depth; block += kDepthBlock) {
    const int64_t left = (task.depth - block + 1) / 2;
    const int64_t pairs = left < kPairs ? left : kPairs;
    const int64_t bytes = pairs * (columns.width[0] + columns.width[1]) * 4;
    const char* fetch = kAhead ? Advance(task.ahead, bytes) : panel + kPrefetchBytes;
    const auto sums = SumBlock<kRows, kTiles, kRagged>(panel, pairs, columns, fetch, x);
    POLYAD_UNROLL
    for (int r = 0; r < kRows; ++r) {
      x[r] += kDepthBlock;
      POLYAD_UNROLL
      for (int t = 0; t < kTiles; ++t) {
        const __m512 both = _mm512_add_ps(sums.even[r][t], sums.odd[r][t]);
        totals[r][t] = onto_sink ? both : _mm512_add_ps(totals[r][t], both);
      }
    }
    panel += bytes;
  }
  POLYAD_UNROLL
  for (int r = 0; r < kRows; ++r) {
    POLYAD_UNROLL
    for (int t = 0; t < kTiles; ++t)
      StoreSums(task, r, column + t * kTileColumns, columns.mask[t], totals[r][t]);
  }
}

// Not inlined: no arithmetic may wander across the caller's change of mode.
template <int kRows, bool kAhead>
__attribute__((noinline)) void SumPanels(const PanelTask& task) {
  alignas(64) float wide[kRows * kAmxFewRowsDepth];
  const int64_t padded = (task.depth + kDepthBlock - 1) / kDepthBlock * kDepthBlock;
  for (int r = 0; r < kRows; ++r) Widen(task, r, wide + r * padded);
  const char* panel = task.panels;
  for (int64_t column = 0; column < task.columns;
       column += kPanelColumns, panel += task.panel_bytes) {
    const int64_t count =
        task.columns - column < kPanelColumns ? task.columns - column : kPanelColumns;
    Columns columns;
    for (int t = 0; t < 2; ++t) {
      const int64_t width = count - t * kTileColumns;
      columns.width[t] = width < 0 ? 0 : width > kTileColumns ? kTileColumns : width;
      columns.mask[t] = static_cast<__mmask16>((1u << columns.width[t]) - 1);
    }
    if (count == kPanelColumns) {
      SumPanel<kRows, 2, false, kAhead>(task, panel, columns, wide, column);
    } else if (count > kTileColumns) {
      SumPanel<kRows, 2, true, kAhead>(task, panel, columns, wide, column);
    } else if (count == kTileColumns) {
      SumPanel<kRows, 1, false, kAhead>(task, panel, columns, wide, column);
    } else {
      SumPanel<kRows, 1, true, kAhead>(task, panel, columns, wide, column);
    }
  }
}

}  // namespace

void AmxFewRowsBf16(const PanelTask& task) {
  constexpr unsigned kSubnormalsAreZero = 0x8040;  // FTZ and DAZ
  const unsigned control = _mm_getcsr();
  _mm_setcsr(control | kSubnormalsAreZero);
  if (task.ahead != nullptr) {
    task.rows == 1 ? SumPanels<1, true>(task) : SumPanels<2, true>(task);
  } else {
    task.rows == 1 ? SumPanels<1, false>(task) : SumPanels<2, false>(task);
  }
  _mm_setcsr(control);
}

}  // namespace polyad::cpu
