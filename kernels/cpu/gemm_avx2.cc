#include <immintrin.h>

#include "kernels/cpu/gemm_kernels.h"

// y[r][c] (+)= sum_k x[r][k] w[k][c], 256-bit: 4 rows x 16 columns of sums in registers, one chain
// of fused multiply-adds per sum over k. bf16 weights are widened on the fly; inputs arrive
// widened.

namespace polyad::cpu {
namespace {

constexpr int64_t kPrefetchBytes = 2048;
constexpr int kMaxRows = 4;  // 8 sums + 4 weights + 2 inputs of 16 registers

// The columns of a tile that exist, as masks of its two halves.
struct Tile {
  int64_t width;
  __m256i mask[2];
};

Tile TileOf(int64_t width) {
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const int count = static_cast<int>(width);
  Tile tile;
  tile.width = width;
  tile.mask[0] = _mm256_cmpgt_epi32(_mm256_set1_epi32(count), lanes);
  tile.mask[1] = _mm256_cmpgt_epi32(_mm256_set1_epi32(count - 8), lanes);
  return tile;
}

template <bool kRagged>
inline __m256 LoadWeights(const char* at, __m256i mask) {
  const auto* words = reinterpret_cast<const float*>(at);
  return kRagged ? _mm256_maskload_ps(words, mask) : _mm256_loadu_ps(words);
}

inline void StoreSums(const PanelTask& task, int64_t row, int64_t column, __m256i mask,
                      __m256 sum) {
  float* y = task.y + row * task.y_stride + column;
  if (task.bias != nullptr) sum = _mm256_add_ps(sum, _mm256_maskload_ps(task.bias + column, mask));
  if (task.accumulate) sum = _mm256_add_ps(_mm256_maskload_ps(y, mask), sum);
  _mm256_maskstore_ps(y, mask, sum);
}

struct F32Step {
  static constexpr int kInputs = 1;
  template <int kRows>
  static inline void Add(const float* const* x, int64_t k, const __m256* w, __m256 (*sums)[2]) {
    POLYAD_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const __m256 a = _mm256_broadcast_ss(x[r] + k);
      sums[r][0] = _mm256_fmadd_ps(a, w[0], sums[r][0]);
      sums[r][1] = _mm256_fmadd_ps(a, w[1], sums[r][1]);
    }
  }
};

struct WidenStep {
  static constexpr int kInputs = 2;
  template <int kRows>
  static inline void Add(const float* const* x, int64_t k, const __m256* w, __m256 (*sums)[2]) {
    const __m256 upper = _mm256_castsi256_ps(_mm256_set1_epi32(static_cast<int>(0xffff0000u)));
    __m256 even[2];
    __m256 odd[2];
    POLYAD_UNROLL
    for (int h = 0; h < 2; ++h) {
      even[h] = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(w[h]), 16));
      odd[h] = _mm256_and_ps(w[h], upper);
    }
    POLYAD_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const __m256 a = _mm256_broadcast_ss(x[r] + k);
      const __m256 b = _mm256_broadcast_ss(x[r] + k + 1);
      POLYAD_UNROLL
      for (int h = 0; h < 2; ++h) {
        sums[r][h] = _mm256_fmadd_ps(a, even[h], sums[r][h]);
        sums[r][h] = _mm256_fmadd_ps(b, odd[h], sums[r][h]);
      }
    }
  }
};

// kRows rows of one tile; `before` columns of the panel lie before the tile, `columns` are in the
// panel.
template <typename Step, int kRows, bool kRagged>
void SumRows(const PanelTask& task, const char* panel, const Tile& tile, int64_t before,
             int64_t columns, int64_t row, int64_t column) {
  const float* x[kRows];
  __m256 sums[kRows][2];
  POLYAD_UNROLL
  for (int r = 0; r < kRows; ++r) {
    x[r] = static_cast<const float*>(task.x) + (row + r) * task.x_stride;
    sums[r][0] = _mm256_setzero_ps();
    sums[r][1] = _mm256_setzero_ps();
  }
  const int64_t width = kRagged ? tile.width : kTileColumns;
  for (int64_t block = 0; block < task.depth; block += kDepthBlock) {
    const int64_t depth = task.depth - block < kDepthBlock ? task.depth - block : kDepthBlock;
    const int64_t steps = (depth + Step::kInputs - 1) / Step::kInputs;
    const char* weights = panel + steps * before * 4;
    for (int64_t step = 0; step < steps; ++step, weights += width * 4) {
      const __m256 w[2] = {LoadWeights<kRagged>(weights, tile.mask[0]),
                           LoadWeights<kRagged>(weights + 32, tile.mask[1])};
      _mm_prefetch(weights + kPrefetchBytes, _MM_HINT_T0);
      Step::template Add<kRows>(x, block + step * Step::kInputs, w, sums);
    }
    panel += steps * columns * 4;
  }
  POLYAD_UNROLL
  for (int r = 0; r < kRows; ++r) {
    StoreSums(task, row + r, column, tile.mask[0], sums[r][0]);
    if (tile.width > 8) StoreSums(task, row + r, column + 8, tile.mask[1], sums[r][1]);
  }
}

template <typename Step, bool kRagged>
void SumTile(const PanelTask& task, const char* panel, int64_t before, int64_t columns,
             int64_t first) {
  const int64_t width = columns - before < kTileColumns ? columns - before : kTileColumns;
  const Tile tile = TileOf(width);
  const int64_t column = first + before;
  int64_t row = 0;
  for (; row + kMaxRows <= task.rows; row += kMaxRows) {
    SumRows<Step, kMaxRows, kRagged>(task, panel, tile, before, columns, row, column);
  }
  for (; row < task.rows; ++row)
    SumRows<Step, 1, kRagged>(task, panel, tile, before, columns, row, column);
}

template <typename Step>
void FloatPanels(const PanelTask& task) {
  const char* panel = task.panels;
  for (int64_t first = 0; first < task.columns; first += kPanelColumns, panel += task.panel_bytes) {
    const int64_t columns =
        task.columns - first < kPanelColumns ? task.columns - first : kPanelColumns;
    for (int64_t before = 0; before < columns; before += kTileColumns) {
      if (columns - before >= kTileColumns) {
        SumTile<Step, false>(task, panel, before, columns, first);
      } else {
        SumTile<Step, true>(task, panel, before, columns, first);
      }
    }
  }
}

}  // namespace

GemmKernels Avx2GemmKernels() {
  return GemmKernels{FloatPanels<F32Step>,
                     FloatPanels<WidenStep>,
                     Avx2Integers8,
                     Avx2Integers4,
                     Avx2QuantizeRow,
                     true,
                     2};
}

}  // namespace polyad::cpu
