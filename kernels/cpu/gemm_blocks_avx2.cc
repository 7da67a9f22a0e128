#include <immintrin.h>

#include "kernels/cpu/gemm_kernels.h"

// y[r][c] (+)= sum over blocks of 32 inputs of scale_x[r][b] scale_w[b][c] (q_x . q_w), 256-bit.
// Bytes are multiplied in pairs with sums of 16 bits, which hold: |q_w| <= 128 and |q_x| <= 127
// give at most 32,512. The same order of exact block dots and fused multiply-adds as the 512-bit
// kernel, so the two levels agree bit for bit.

namespace polyad::cpu {
namespace {

constexpr int64_t kPrefetchBytes = 2048;
constexpr int64_t kScaleBytes = kPanelColumns * 2;
constexpr int kGroups = 8;   // of 4 inputs in a block
constexpr int kColumns = 8;  // per register
constexpr int kMaxRows = 2;  // 8 weights + 2 sums + 5 of work of 16 registers

// Pairs of products of 4 bytes summed to 32 bits, added to dot.
inline __m256i AddDot(__m256i dot, __m256i unsigned_bytes, __m256i signed_bytes) {
  const __m256i pairs = _mm256_maddubs_epi16(unsigned_bytes, signed_bytes);
  return _mm256_add_epi32(dot, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

struct Q80 {
  static constexpr int64_t kTileBytes = 512;
  static constexpr bool kMinimum = false;
  static constexpr int kOffset = 0;  // taken off while loading: the signs are moved to the inputs
  static inline void Load(const char* at, __m256i* w) {
    POLYAD_UNROLL
    for (int g = 0; g < kGroups; ++g) {
      const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at + g * 64));
      w[g] = _mm256_xor_si256(bytes, _mm256_set1_epi8(-128));
    }
  }
  static inline __m256i Add(__m256i dot, __m256i w, __m256i x) {
    return AddDot(dot, _mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
  }
};

struct Nibbles {
  static constexpr int64_t kTileBytes = 256;
  static inline void Load(const char* at, __m256i* w) {
    const __m256i low = _mm256_set1_epi8(15);
    POLYAD_UNROLL
    for (int g = 0; g < kGroups / 2; ++g) {
      const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at + g * 64));
      w[g] = _mm256_and_si256(bytes, low);
      w[g + kGroups / 2] = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), low);
    }
  }
  static inline __m256i Add(__m256i dot, __m256i w, __m256i x) { return AddDot(dot, w, x); }
};

struct Q40 : Nibbles {
  static constexpr bool kMinimum = false;
  static constexpr int kOffset = 8;
};
struct Q41 : Nibbles {
  static constexpr bool kMinimum = true;
  static constexpr int kOffset = 0;
};

inline __m256 LoadScales(const char* at) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
}

inline void StoreSums(const PanelTask& task, int64_t row, int64_t column, __m256 sum) {
  const int64_t left = task.columns - column;
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const int count = static_cast<int>(left < kColumns ? left : kColumns);
  const __m256i mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(count), lanes);
  float* y = task.y + row * task.y_stride + column;
  if (task.bias != nullptr) sum = _mm256_add_ps(sum, _mm256_maskload_ps(task.bias + column, mask));
  if (task.accumulate) sum = _mm256_add_ps(_mm256_maskload_ps(y, mask), sum);
  _mm256_maskstore_ps(y, mask, sum);
}

// kRows rows by the 8 columns from `lane` of the panel at `column`.
template <typename Format, int kRows>
void SumRows(const PanelTask& task, const char* panel, int64_t row, int64_t column, int64_t lane) {
  constexpr int64_t kIntegers = 2 * Format::kTileBytes;
  constexpr int64_t kStride = kIntegers + kScaleBytes * (Format::kMinimum ? 2 : 1);
  const int64_t num_blocks = task.depth / kDepthBlock;
  const int8_t* q = task.quantized.q + row * task.depth;
  const float* scale = task.quantized.scale + row * num_blocks;
  const int32_t* sum = task.quantized.sum + row * num_blocks;
  const char* integers = panel + lane / kTileColumns * Format::kTileBytes + lane % kTileColumns * 4;
  const char* scales = panel + kIntegers + lane * 2;
  __m256 sums[kRows];
  POLYAD_UNROLL
  for (int r = 0; r < kRows; ++r) sums[r] = _mm256_setzero_ps();
  for (int64_t block = 0; block < num_blocks; ++block, integers += kStride, scales += kStride) {
    _mm_prefetch(integers + kPrefetchBytes, _MM_HINT_T0);
    __m256i w[kGroups];
    Format::Load(integers, w);
    const __m256 d = LoadScales(scales);
    POLYAD_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const int8_t* inputs = q + r * task.depth + block * kDepthBlock;
      const int32_t block_sum = sum[r * num_blocks + block];
      const float x_scale = scale[r * num_blocks + block];
      __m256i dot = _mm256_set1_epi32(-Format::kOffset * block_sum);
      POLYAD_UNROLL
      for (int g = 0; g < kGroups; ++g) {
        int four;
        __builtin_memcpy(&four, inputs + g * 4, sizeof(four));
        dot = Format::Add(dot, w[g], _mm256_set1_epi32(four));
      }
      const __m256 both = _mm256_mul_ps(_mm256_set1_ps(x_scale), d);
      sums[r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), both, sums[r]);
      if (Format::kMinimum) {
        const __m256 total = _mm256_set1_ps(x_scale * static_cast<float>(block_sum));
        sums[r] = _mm256_fmadd_ps(LoadScales(scales + kScaleBytes), total, sums[r]);
      }
    }
  }
  POLYAD_UNROLL
  for (int r = 0; r < kRows; ++r) StoreSums(task, row + r, column + lane, sums[r]);
}

template <typename Format>
void BlockPanels(const PanelTask& task) {
  const char* panel = task.panels;
  for (int64_t column = 0; column < task.columns;
       column += kPanelColumns, panel += task.panel_bytes) {
    for (int64_t lane = 0; lane < kPanelColumns && column + lane < task.columns; lane += kColumns) {
      int64_t row = 0;
      for (; row + kMaxRows <= task.rows; row += kMaxRows) {
        SumRows<Format, kMaxRows>(task, panel, row, column, lane);
      }
      if (row < task.rows) SumRows<Format, 1>(task, panel, row, column, lane);
    }
  }
}

}  // namespace

void Avx2QuantizeRow(const uint16_t* x, int64_t depth, int8_t* q, float* scale, int32_t* sum) {
  const __m256i magnitude = _mm256_set1_epi16(0x7fff);
  for (int64_t k = 0; k < depth; k += kDepthBlock, x += kDepthBlock, q += kDepthBlock) {
    const auto* words = reinterpret_cast<const __m256i*>(x);
    const __m256i half =
        _mm256_max_epu16(_mm256_and_si256(_mm256_loadu_si256(words), magnitude),
                         _mm256_and_si256(_mm256_loadu_si256(words + 1), magnitude));
    // The largest magnitude bits are the largest magnitude; minpos finds the smallest complement.
    const __m128i quarter =
        _mm_max_epu16(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
    const __m128i least = _mm_minpos_epu16(_mm_xor_si128(quarter, _mm_set1_epi16(-1)));
    const uint32_t largest = ~static_cast<uint32_t>(_mm_cvtsi128_si32(least)) & 0xffffu;
    const float peak =
        _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(static_cast<int>(largest << 16))));
    const bool finite = largest < 0x7f80u;
    const float inverse = finite && peak > 1e-35f ? 127.0f / peak : 0.0f;
    int32_t total = 0;
    for (int i = 0; i < 4; ++i) {
      const __m128i eight = _mm_loadu_si128(reinterpret_cast<const __m128i*>(x + i * 8));
      const __m256 value = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(eight), 16));
      __m256i integers = _mm256_cvtps_epi32(_mm256_mul_ps(value, _mm256_set1_ps(inverse)));
      if (!finite) integers = _mm256_setzero_si256();
      const __m128i low = _mm256_castsi256_si128(integers);
      const __m128i high = _mm256_extracti128_si256(integers, 1);
      const __m128i bytes = _mm_packs_epi16(_mm_packs_epi32(low, high), _mm_setzero_si128());
      _mm_storel_epi64(reinterpret_cast<__m128i*>(q + i * 8), bytes);
      const __m128i sums = _mm_hadd_epi32(_mm_add_epi32(low, high), _mm_setzero_si128());
      total += _mm_cvtsi128_si32(_mm_hadd_epi32(sums, sums));
    }
    *scale++ = finite ? peak / 127.0f : __builtin_nanf("");
    *sum++ = total;
  }
}

PanelKernel Avx2Q80Kernel() { return BlockPanels<Q80>; }
PanelKernel Avx2Q40Kernel() { return BlockPanels<Q40>; }
PanelKernel Avx2Q41Kernel() { return BlockPanels<Q41>; }

}  // namespace polyad::cpu
