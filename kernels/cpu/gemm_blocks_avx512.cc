#include <immintrin.h>

#include "kernels/cpu/gemm_kernels.h"

// y[r][c] (+)= sum over blocks of 32 inputs of scale_x[r][b] scale_w[b][c] (q_x . q_w), 512-bit
// VNNI. The integer dot of a block is exact; blocks are added in fp32 in order, one fused
// multiply-add each, so every row's bits are its own. Stored integers are unsigned (q + 128, or
// nibbles): their offset is taken off through the block's sum of inputs.

namespace polyad::cpu {
namespace {

constexpr int64_t kPrefetchBytes = 2048;  // ahead in the panel; docs/notes/0001 has the sweep
constexpr int64_t kScaleBytes = kPanelColumns * 2;
constexpr int kGroups = 8;    // of 4 inputs in a block
constexpr int kMaxRows = 12;  // 12 sums + 8 weights + a few of 32 registers

struct Q80 {
  static constexpr int64_t kTileBytes = 512;
  static constexpr bool kMinimum = false;
  static constexpr int kOffset = 128;
  static inline void Load(const char* at, __m512i* w) {
    POLYAD_UNROLL
    for (int g = 0; g < kGroups; ++g) w[g] = _mm512_loadu_si512(at + g * 64);
  }
};

struct Nibbles {
  static constexpr int64_t kTileBytes = 256;
  static inline void Load(const char* at, __m512i* w) {
    const __m512i low = _mm512_set1_epi8(15);
    POLYAD_UNROLL
    for (int g = 0; g < kGroups / 2; ++g) {
      const __m512i bytes = _mm512_loadu_si512(at + g * 64);
      w[g] = _mm512_and_si512(bytes, low);
      w[g + kGroups / 2] = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), low);
    }
  }
};

struct Q40 : Nibbles {
  static constexpr bool kMinimum = false;
  static constexpr int kOffset = 8;
};
struct Q41 : Nibbles {
  static constexpr bool kMinimum = true;
  static constexpr int kOffset = 0;
};

inline __m512 LoadScales(const char* at) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)));
}

inline void StoreSums(const PanelTask& task, int64_t row, int64_t column, __mmask16 mask,
                      __m512 sum) {
  float* y = task.y + row * task.y_stride + column;
  if (task.bias != nullptr)
    sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, task.bias + column));
  if (task.accumulate) sum = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, y), sum);
  _mm512_mask_storeu_ps(y, mask, sum);
}

// kTiles tiles of 16 columns from `tile` on, for kRows rows from `row` on.
template <typename Format, int kRows, int kTiles>
void SumRows(const PanelTask& task, const char* panel, int64_t row, int64_t column, int64_t tile) {
  constexpr int64_t kIntegers = 2 * Format::kTileBytes;
  constexpr int64_t kStride = kIntegers + kScaleBytes * (Format::kMinimum ? 2 : 1);
  const int64_t num_blocks = task.depth / kDepthBlock;
  const int8_t* q = task.quantized.q + row * task.depth;
  const float* scale = task.quantized.scale + row * num_blocks;
  const int32_t* sum = task.quantized.sum + row * num_blocks;
  __m512 sums[kRows][kTiles];
  POLYAD_UNROLL
  for (int r = 0; r < kRows; ++r) {
    POLYAD_UNROLL
    for (int t = 0; t < kTiles; ++t) sums[r][t] = _mm512_setzero_ps();
  }
  for (int64_t block = 0; block < num_blocks; ++block, panel += kStride) {
    if (row == 0) {
      for (int64_t line = 0; line < kStride; line += 64)
        _mm_prefetch(panel + kPrefetchBytes + line, _MM_HINT_T1);
    }
    POLYAD_UNROLL
    for (int t = 0; t < kTiles; ++t) {
      __m512i w[kGroups];
      Format::Load(panel + (tile + t) * Format::kTileBytes, w);
      const char* scales = panel + kIntegers + (tile + t) * kTileColumns * 2;
      const __m512 d = LoadScales(scales);
      POLYAD_UNROLL
      for (int r = 0; r < kRows; ++r) {
        const int8_t* inputs = q + r * task.depth + block * kDepthBlock;
        const int32_t block_sum = sum[r * num_blocks + block];
        const float x_scale = scale[r * num_blocks + block];
        __m512i dot = _mm512_set1_epi32(-Format::kOffset * block_sum);
        POLYAD_UNROLL
        for (int g = 0; g < kGroups; ++g) {
          int four;
          __builtin_memcpy(&four, inputs + g * 4, sizeof(four));
          dot = _mm512_dpbusd_epi32(dot, w[g], _mm512_set1_epi32(four));
        }
        const __m512 both = _mm512_mul_ps(_mm512_set1_ps(x_scale), d);
        sums[r][t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), both, sums[r][t]);
        if (Format::kMinimum) {
          const __m512 total = _mm512_set1_ps(x_scale * static_cast<float>(block_sum));
          sums[r][t] = _mm512_fmadd_ps(LoadScales(scales + kScaleBytes), total, sums[r][t]);
        }
      }
    }
  }
  POLYAD_UNROLL
  for (int t = 0; t < kTiles; ++t) {
    const int64_t first = column + (tile + t) * kTileColumns;
    int64_t width = task.columns - first;
    width = width < 0 ? 0 : width > kTileColumns ? kTileColumns : width;
    const __mmask16 mask = static_cast<__mmask16>((1u << width) - 1);
    if (width == 0) continue;
    POLYAD_UNROLL
    for (int r = 0; r < kRows; ++r) StoreSums(task, row + r, first, mask, sums[r][t]);
  }
}

template <typename Format>
void BlockPanels(const PanelTask& task) {
  const char* panel = task.panels;
  for (int64_t column = 0; column < task.columns;
       column += kPanelColumns, panel += task.panel_bytes) {
    int64_t row = 0;
    for (; row + kMaxRows <= task.rows; row += kMaxRows) {
      SumRows<Format, kMaxRows, 1>(task, panel, row, column, 0);
      SumRows<Format, kMaxRows, 1>(task, panel, row, column, 1);
    }
    for (; row + 4 <= task.rows; row += 4) {
      SumRows<Format, 4, 1>(task, panel, row, column, 0);
      SumRows<Format, 4, 1>(task, panel, row, column, 1);
    }
    switch (task.rows - row) {
      case 3:
        SumRows<Format, 3, 2>(task, panel, row, column, 0);
        break;
      case 2:
        SumRows<Format, 2, 2>(task, panel, row, column, 0);
        break;
      case 1:
        SumRows<Format, 1, 2>(task, panel, row, column, 0);
        break;
      default:
        break;
    }
  }
}

}  // namespace

void Avx512QuantizeRow(const uint16_t* x, int64_t depth, int8_t* q, float* scale, int32_t* sum) {
  const __m512i magnitude = _mm512_set1_epi16(0x7fff);
  for (int64_t k = 0; k < depth; k += kDepthBlock, x += kDepthBlock, q += kDepthBlock) {
    const __m512i words = _mm512_loadu_si512(x);
    // The largest magnitude bits are the largest magnitude; minpos finds the smallest complement.
    const __m512i all = _mm512_and_si512(words, magnitude);
    const __m256i half =
        _mm256_max_epu16(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64(all, 1));
    const __m128i quarter =
        _mm_max_epu16(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
    const __m128i least = _mm_minpos_epu16(_mm_xor_si128(quarter, _mm_set1_epi16(-1)));
    const uint32_t largest = ~static_cast<uint32_t>(_mm_cvtsi128_si32(least)) & 0xffffu;
    const float peak =
        _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(static_cast<int>(largest << 16))));
    const bool finite = largest < 0x7f80u;
    const float inverse = finite && peak > 1e-35f ? 127.0f / peak : 0.0f;
    __m512i low = _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(words)), 16);
    __m512i high =
        _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(words, 1)), 16);
    low = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_castsi512_ps(low), _mm512_set1_ps(inverse)));
    high = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_castsi512_ps(high), _mm512_set1_ps(inverse)));
    if (!finite) low = high = _mm512_setzero_si512();
    _mm_storeu_si128(reinterpret_cast<__m128i*>(q), _mm512_cvtepi32_epi8(low));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(q + 16), _mm512_cvtepi32_epi8(high));
    *scale++ = finite ? peak / 127.0f : __builtin_nanf("");
    *sum++ = _mm512_reduce_add_epi32(_mm512_add_epi32(low, high));
  }
}

PanelKernel Avx512Q80Kernel() { return BlockPanels<Q80>; }
PanelKernel Avx512Q40Kernel() { return BlockPanels<Q40>; }
PanelKernel Avx512Q41Kernel() { return BlockPanels<Q41>; }

}  // namespace polyad::cpu
