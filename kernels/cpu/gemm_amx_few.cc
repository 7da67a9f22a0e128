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

template <int kRows, int kTiles, bool kRagged>
void SumPanel(const PanelTask& task, const char* panel, const Columns& columns, const float* wide,
              int64_t column) {
  const int64_t padded = (task.depth + kDepthBlock - 1) / kDepthBlock * kDepthBlock;
  const int64_t stride0 = kRagged ? columns.width[0] * 4 : 64;
  const int64_t stride1 = kRagged ? columns.width[1] * 4 : 64;
  const bool onto_sink = StartsOnSink(task);
  __m512 totals[kRows][kTiles];
  POLYAD_UNROLL
  for (int r = 0; r < kRows; ++r) {
    POLYAD_UNROLL
    for (int t = 0; t < kTiles; ++t) totals[r][t] = _mm512_setzero_ps();
  }
  for (int64_t block = 0; block < task.depth; block += kDepthBlock) {
    const int64_t left = (task.depth - block + 1) / 2;
    const int64_t pairs = left < kPairs ? left : kPairs;
    const char* second = panel + pairs * stride0;
    Sums<kRows, kTiles> sums;
    const float* x[kRows];
    POLYAD_UNROLL
    for (int r = 0; r < kRows; ++r) {
      x[r] = wide + r * padded + block;
      POLYAD_UNROLL
      for (int t = 0; t < kTiles; ++t) sums.even[r][t] = sums.odd[r][t] = _mm512_setzero_ps();
    }
    for (int64_t pair = 0; pair < pairs; ++pair) {
      __m512i w[2];
      w[0] = LoadWeights<kRagged>(panel + pair * stride0, columns.mask[0]);
      if (kTiles == 2) w[1] = LoadWeights<kRagged>(second + pair * stride1, columns.mask[1]);
      _mm_prefetch(panel + pair * stride0 + kPrefetchBytes, _MM_HINT_T0);
      if (kTiles == 2) _mm_prefetch(second + pair * stride1 + kPrefetchBytes, _MM_HINT_T0);
      AddPair<kRows, kTiles>(x, w, &sums);
      POLYAD_UNROLL
      for (int r = 0; r < kRows; ++r) ++x[r];
    }
    POLYAD_UNROLL
    for (int r = 0; r < kRows; ++r) {
      POLYAD_UNROLL
      for (int t = 0; t < kTiles; ++t) {
        const __m512 both = _mm512_add_ps(sums.even[r][t], sums.odd[r][t]);
        totals[r][t] = onto_sink ? both : _mm512_add_ps(totals[r][t], both);
      }
    }
    panel = second + (kTiles == 2 ? pairs * stride1 : 0);
  }
  POLYAD_UNROLL
  for (int r = 0; r < kRows; ++r) {
    POLYAD_UNROLL
    for (int t = 0; t < kTiles; ++t)
      StoreSums(task, r, column + t * kTileColumns, columns.mask[t], totals[r][t]);
  }
}

// Not inlined: no arithmetic may wander across the caller's change of mode.
template <int kRows>
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
      SumPanel<kRows, 2, false>(task, panel, columns, wide, column);
    } else if (count > kTileColumns) {
      SumPanel<kRows, 2, true>(task, panel, columns, wide, column);
    } else if (count == kTileColumns) {
      SumPanel<kRows, 1, false>(task, panel, columns, wide, column);
    } else {
      SumPanel<kRows, 1, true>(task, panel, columns, wide, column);
    }
  }
}

}  // namespace

void AmxFewRowsBf16(const PanelTask& task) {
  constexpr unsigned kSubnormalsAreZero = 0x8040;  // FTZ and DAZ
  const unsigned control = _mm_getcsr();
  _mm_setcsr(control | kSubnormalsAreZero);
  if (task.rows == 1) {
    SumPanels<1>(task);
  } else {
    SumPanels<2>(task);
  }
  _mm_setcsr(control);
}

}  // namespace polyad::cpu
