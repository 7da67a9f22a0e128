#include <immintrin.h>

#include "kernels/cpu/gemm_kernels.h"
#include "kernels/cpu/integer_forms.h"

// y[r][c] (+)= sum over blocks of 32 inputs of scale_x[r][b] scale_w[b][c] (q_x . code), 512-bit
// VNNI. The integer dot of a group within a block is exact; they are added in fp32 in order, one
// fused multiply-add each, so every row's bits are its own. Codes are unsigned: their zero is taken
// off through the sum of inputs.

namespace polyad::cpu {
namespace {

constexpr int64_t kPrefetchBytes = 2048;  // ahead in the panel; docs/notes/0001 has the sweep
constexpr int kWords = 8;                 // of 4 inputs in a block
constexpr int kMaxRows = 12;              // 12 sums + 8 weights + a few of 32 registers

struct Bytes {
  static constexpr int64_t kTileBytes = 512;
  static inline void Load(const char* at, __m512i* w) {
    POLYAD_UNROLL
    for (int g = 0; g < kWords; ++g) w[g] = _mm512_loadu_si512(at + g * 64);
  }
};

struct Nibbles {
  static constexpr int64_t kTileBytes = 256;
  static inline void Load(const char* at, __m512i* w) {
    const __m512i low = _mm512_set1_epi8(15);
    POLYAD_UNROLL
    for (int g = 0; g < kWords; g += 2) {
      const __m512i bytes = _mm512_loadu_si512(at + g * 32);
      w[g] = _mm512_and_si512(bytes, low);
      w[g + 1] = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), low);
    }
  }
};

// How groups divide blocks, whether they have minima, and what their numbers are.
template <int kHalvesOfABlock, bool kWithMinima, bool kOfF16>
struct Groups {
  static constexpr int kHalves = kHalvesOfABlock;  // 2: a group for each half of a block
  static constexpr bool kMinima = kWithMinima;

  static inline __m512 Load(const char* numbers, int64_t lane) {
    if (!kOfF16) return _mm512_loadu_ps(numbers + lane * 4);
    return _mm512_cvtph_ps(
        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(numbers + lane * 2)));
  }
};

inline void StoreSums(const PanelTask& task, int64_t row, int64_t column, __mmask16 mask,
                      __m512 sum) {
  float* y = task.y + row * task.y_stride + column;
  if (task.bias != nullptr)
    sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, task.bias + column));
  if (task.accumulate) sum = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, y), sum);
  _mm512_mask_storeu_ps(y, mask, sum);
}

// Where one row's inputs of a block are.
struct RowBlock {
  const int8_t* q;
  float scale;
  const int32_t* sums;  // one for each group
};

// One row, one tile, one block: dots of its groups, scaled, onto `sum`.
template <typename Form>
inline __m512 AddBlock(const RowBlock& row, const __m512i* w, const IntegerScaling& scaling,
                       int64_t lane, __m512 sum) {
  constexpr int kWordsOfGroup = kWords / Form::kHalves;
  POLYAD_UNROLL
  for (int half = 0; half < Form::kHalves; ++half) {
    __m512i dot = _mm512_set1_epi32(-scaling.zero * row.sums[half]);
    POLYAD_UNROLL
    for (int g = half * kWordsOfGroup; g < (half + 1) * kWordsOfGroup; ++g) {
      int four;
      __builtin_memcpy(&four, row.q + g * 4, sizeof(four));
      dot = _mm512_dpbusd_epi32(dot, w[g], _mm512_set1_epi32(four));
    }
    const int64_t group = half * scaling.group_bytes;
    const __m512 d = Form::Load(scaling.scales + group, lane);
    sum =
        _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), _mm512_mul_ps(_mm512_set1_ps(row.scale), d), sum);
    if (Form::kMinima) {
      const __m512 total = _mm512_set1_ps(row.scale * static_cast<float>(row.sums[half]));
      sum = _mm512_fmadd_ps(Form::Load(scaling.minima + group, lane), total, sum);
    }
  }
  return sum;
}

// kTiles tiles of 16 columns from `tile` on, for kRows rows from `row` on.
template <typename Codes, typename Form, int kRows, int kTiles>
void SumRows(const PanelTask& task, int64_t row, int64_t tile) {
  const int64_t num_blocks = task.depth / kDepthBlock;
  const QuantizedRows& x = task.quantized;
  const int32_t* block_sums = Form::kHalves == 2 ? x.half_sum : x.sum;
  IntegerScaling scaling = task.scaling;
  const char* codes = task.panels + tile * Codes::kTileBytes;
  int64_t left = scaling.blocks_per_group;
  __m512 sums[kRows][kTiles];
  POLYAD_UNROLL
  for (int r = 0; r < kRows; ++r) {
    POLYAD_UNROLL
    for (int t = 0; t < kTiles; ++t) sums[r][t] = _mm512_setzero_ps();
  }
  for (int64_t block = 0; block < num_blocks; ++block, codes += 2 * Codes::kTileBytes) {
    if (row == 0) {
      for (int64_t line = 0; line < kTiles * Codes::kTileBytes; line += 64)
        _mm_prefetch(codes + kPrefetchBytes + line, _MM_HINT_T1);
    }
    POLYAD_UNROLL
    for (int t = 0; t < kTiles; ++t) {
      __m512i w[kWords];
      Codes::Load(codes + t * Codes::kTileBytes, w);
      POLYAD_UNROLL
      for (int r = 0; r < kRows; ++r) {
        const int64_t at = (row + r) * num_blocks + block;
        const RowBlock inputs{x.q + at * kDepthBlock, x.scale[at], block_sums + at * Form::kHalves};
        sums[r][t] = AddBlock<Form>(inputs, w, scaling, (tile + t) * kTileColumns, sums[r][t]);
      }
    }
    if (Form::kHalves == 1 && --left > 0) continue;
    left = scaling.blocks_per_group;
    scaling.scales += Form::kHalves * scaling.group_bytes;
    if (Form::kMinima) scaling.minima += Form::kHalves * scaling.group_bytes;
  }
  POLYAD_UNROLL
  for (int t = 0; t < kTiles; ++t) {
    const int64_t first = (tile + t) * kTileColumns;
    int64_t width = task.columns - first;
    width = width < 0 ? 0 : width > kTileColumns ? kTileColumns : width;
    const __mmask16 mask = static_cast<__mmask16>((1u << width) - 1);
    if (width == 0) continue;
    POLYAD_UNROLL
    for (int r = 0; r < kRows; ++r) StoreSums(task, row + r, first, mask, sums[r][t]);
  }
}

template <typename Codes, typename Form>
void SumPanel(const PanelTask& task) {
  // The numbers of the groups lie between the last panel's codes and these.
  for (int64_t line = 0; line < kPrefetchBytes; line += 64)
    _mm_prefetch(task.panels + line, _MM_HINT_T1);
  int64_t row = 0;
  for (; row + kMaxRows <= task.rows; row += kMaxRows) {
    SumRows<Codes, Form, kMaxRows, 1>(task, row, 0);
    SumRows<Codes, Form, kMaxRows, 1>(task, row, 1);
  }
  for (; row + 4 <= task.rows; row += 4) {
    SumRows<Codes, Form, 4, 1>(task, row, 0);
    SumRows<Codes, Form, 4, 1>(task, row, 1);
  }
  switch (task.rows - row) {
    case 3:
      return SumRows<Codes, Form, 3, 2>(task, row, 0);
    case 2:
      return SumRows<Codes, Form, 2, 2>(task, row, 0);
    case 1:
      return SumRows<Codes, Form, 1, 2>(task, row, 0);
    default:
      return;
  }
}

template <typename Codes>
void Integers(const PanelTask& task) {
  ForGroups<Groups>(task.scaling, [&task](auto form) { SumPanel<Codes, decltype(form)>(task); });
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

void Avx512Integers8(const PanelTask& task) { Integers<Bytes>(task); }
void Avx512Integers4(const PanelTask& task) { Integers<Nibbles>(task); }

}  // namespace polyad::cpu
