#include <immintrin.h>

#include "kernels/cpu/gemm_kernels.h"

// y[r][c] (+)= sum_k x[r][k] w[k][c], 512-bit: up to 12 rows x 32 columns of sums stay in registers
// while a panel streams by. Every sum is one chain of fused multiply-adds (or of bf16 pair dots)
// over k, whatever the rows beside it.

namespace polyad::cpu {
namespace {

constexpr int64_t kPrefetchBytes = 2048;  // ahead in the panel; docs/notes/0001 has the sweep
constexpr int kMaxRows = 12;              // 24 sums + 4 weights + 1 input of 32 registers

// Which columns of the two tiles exist.
struct Columns {
  int64_t width[2];
  __mmask16 mask[2];
};

Columns ColumnsOf(int64_t columns) {
  Columns result;
  for (int t = 0; t < 2; ++t) {
    int64_t width = columns - t * kTileColumns;
    width = width < 0 ? 0 : width > kTileColumns ? kTileColumns : width;
    result.width[t] = width;
    result.mask[t] = static_cast<__mmask16>((1u << width) - 1);
  }
  return result;
}

template <bool kRagged>
inline __m512i LoadWeights(const char* at, __mmask16 mask) {
  return kRagged ? _mm512_maskz_loadu_epi32(mask, at) : _mm512_loadu_si512(at);
}

inline void StoreSums(const PanelTask& task, float* y, const float* bias, __mmask16 mask,
                      __m512 sum) {
  if (bias != nullptr) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, bias));
  if (task.accumulate) sum = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, y), sum);
  _mm512_mask_storeu_ps(y, mask, sum);
}

// One step of the sum per format: x points at this step's input(s) of a row, w holds 16 columns of
// weights.
struct F32Step {
  using Input = float;
  static constexpr int kInputs = 1;
  template <int kRows, int kTiles>
  static inline void Add(const float* const* x, int64_t k, const __m512i* w,
                         __m512 (*sums)[kTiles]) {
    POLYAD_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const __m512 a = _mm512_set1_ps(x[r][k]);
      POLYAD_UNROLL
      for (int t = 0; t < kTiles; ++t) {
        sums[r][t] = _mm512_fmadd_ps(a, _mm512_castsi512_ps(w[t]), sums[r][t]);
      }
    }
  }
};

// bf16 weights widened to fp32, fp32 inputs: two fused multiply-adds, the even input first.
struct WidenStep {
  using Input = float;
  static constexpr int kInputs = 2;
  template <int kRows, int kTiles>
  static inline void Add(const float* const* x, int64_t k, const __m512i* w,
                         __m512 (*sums)[kTiles]) {
    __m512 even[kTiles];
    __m512 odd[kTiles];
    POLYAD_UNROLL
    for (int t = 0; t < kTiles; ++t) {
      even[t] = _mm512_castsi512_ps(_mm512_slli_epi32(w[t], 16));
      odd[t] = _mm512_castsi512_ps(
          _mm512_and_si512(w[t], _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
    }
    POLYAD_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const __m512 a = _mm512_set1_ps(x[r][k]);
      const __m512 b = _mm512_set1_ps(x[r][k + 1]);
      POLYAD_UNROLL
      for (int t = 0; t < kTiles; ++t) {
        sums[r][t] = _mm512_fmadd_ps(a, even[t], sums[r][t]);
        sums[r][t] = _mm512_fmadd_ps(b, odd[t], sums[r][t]);
      }
    }
  }
};

// bf16 weights and inputs: the pair dot instruction.
struct DotStep {
  using Input = uint16_t;
  static constexpr int kInputs = 2;
  template <int kRows, int kTiles>
  static inline void Add(const uint16_t* const* x, int64_t k, const __m512i* w,
                         __m512 (*sums)[kTiles]) {
    POLYAD_UNROLL
    for (int r = 0; r < kRows; ++r) {
      int pair;
      __builtin_memcpy(&pair, x[r] + k, sizeof(pair));
      const __m512bh a = (__m512bh)_mm512_set1_epi32(pair);
      POLYAD_UNROLL
      for (int t = 0; t < kTiles; ++t) {
        sums[r][t] = _mm512_dpbf16_ps(sums[r][t], (__m512bh)w[t], a);
      }
    }
  }
};

template <typename Step, int kRows, int kTiles, bool kRagged>
void SumRows(const PanelTask& task, const char* panel, const Columns& columns, int64_t row,
             int64_t column) {
  using Input = typename Step::Input;
  const Input* x[kRows];
  __m512 sums[kRows][kTiles];
  POLYAD_UNROLL
  for (int r = 0; r < kRows; ++r) {
    x[r] = static_cast<const Input*>(task.x) + (row + r) * task.x_stride;
    POLYAD_UNROLL
    for (int t = 0; t < kTiles; ++t) sums[r][t] = _mm512_setzero_ps();
  }
  const int64_t width0 = kRagged ? columns.width[0] : kTileColumns;
  const int64_t width1 = kRagged ? columns.width[1] : kTileColumns;
  for (int64_t block = 0; block < task.depth; block += kDepthBlock) {
    const int64_t depth = task.depth - block < kDepthBlock ? task.depth - block : kDepthBlock;
    const int64_t steps = (depth + Step::kInputs - 1) / Step::kInputs;
    const char* w0 = panel;
    const char* w1 = panel + steps * width0 * 4;
    for (int64_t step = 0; step < steps; ++step) {
      __m512i w[2];
      w[0] = LoadWeights<kRagged>(w0 + step * width0 * 4, columns.mask[0]);
      if (kTiles == 2) w[1] = LoadWeights<kRagged>(w1 + step * width1 * 4, columns.mask[1]);
      _mm_prefetch(w0 + step * width0 * 4 + kPrefetchBytes, _MM_HINT_T0);
      if (kTiles == 2) _mm_prefetch(w1 + step * width1 * 4 + kPrefetchBytes, _MM_HINT_T0);
      Step::template Add<kRows, kTiles>(x, block + step * Step::kInputs, w, sums);
    }
    panel += steps * (width0 + (kTiles == 2 ? width1 : 0)) * 4;
  }
  POLYAD_UNROLL
  for (int r = 0; r < kRows; ++r) {
    POLYAD_UNROLL
    for (int t = 0; t < kTiles; ++t) {
      const int64_t c = column + t * kTileColumns;
      StoreSums(task, task.y + (row + r) * task.y_stride + c,
                task.bias == nullptr ? nullptr : task.bias + c, columns.mask[t], sums[r][t]);
    }
  }
}

template <typename Step, int kTiles, bool kRagged>
void SumPanel(const PanelTask& task, const char* panel, const Columns& columns, int64_t column) {
  int64_t row = 0;
  for (; row + kMaxRows <= task.rows; row += kMaxRows) {
    SumRows<Step, kMaxRows, kTiles, kRagged>(task, panel, columns, row, column);
  }
  for (; row + 8 <= task.rows; row += 8)
    SumRows<Step, 8, kTiles, kRagged>(task, panel, columns, row, column);
  for (; row + 4 <= task.rows; row += 4)
    SumRows<Step, 4, kTiles, kRagged>(task, panel, columns, row, column);
  switch (task.rows - row) {
    case 3:
      SumRows<Step, 3, kTiles, kRagged>(task, panel, columns, row, column);
      break;
    case 2:
      SumRows<Step, 2, kTiles, kRagged>(task, panel, columns, row, column);
      break;
    case 1:
      SumRows<Step, 1, kTiles, kRagged>(task, panel, columns, row, column);
      break;
    default:
      break;
  }
}

template <typename Step>
void FloatPanels(const PanelTask& task) {
  const char* panel = task.panels;
  for (int64_t first = 0; first < task.columns; first += kPanelColumns, panel += task.panel_bytes) {
    const int64_t count =
        task.columns - first < kPanelColumns ? task.columns - first : kPanelColumns;
    const Columns columns = ColumnsOf(count);
    if (count == kPanelColumns) {
      SumPanel<Step, 2, false>(task, panel, columns, first);
    } else if (count > kTileColumns) {
      SumPanel<Step, 2, true>(task, panel, columns, first);
    } else if (count == kTileColumns) {
      SumPanel<Step, 1, false>(task, panel, columns, first);
    } else {
      SumPanel<Step, 1, true>(task, panel, columns, first);
    }
  }
}

}  // namespace

GemmKernels Avx512GemmKernels(bool fast_bf16_dot) {
  return GemmKernels{FloatPanels<F32Step>,
                     fast_bf16_dot ? FloatPanels<DotStep> : FloatPanels<WidenStep>,
                     Avx512Integers8,
                     Avx512Integers4,
                     Avx512QuantizeRow,
                     !fast_bf16_dot,
                     2};
}

}  // namespace polyad::cpu
