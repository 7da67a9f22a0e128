#include <immintrin.h>

#include "kernels/cpu/gemm_kernels.h"
#include "kernels/cpu/integer_forms.h"

// y[r][c] (+)= sum over blocks of 32 inputs of scale_x[r][b] scale_w[b][c] (q_x . code), 256-bit.
// Bytes are multiplied in pairs with sums of 16 bits, which hold: codes less 128 and |q_x| <= 127
// give at most 32,512. The same order of exact dots and fused multiply-adds as the 512-bit kernel,
// so the two levels agree bit for bit.

namespace polyad::cpu {
namespace {

constexpr int64_t kPrefetchBytes = 2048;
constexpr int kWords = 8;    // of 4 inputs in a block
constexpr int kColumns = 8;  // per register
constexpr int kMaxRows = 2;  // 8 weights + 2 sums + 5 of work of 16 registers

// Pairs of products of 4 bytes summed to 32 bits, added to dot.
inline __m256i AddDot(__m256i dot, __m256i unsigned_bytes, __m256i signed_bytes) {
  const __m256i pairs = _mm256_maddubs_epi16(unsigned_bytes, signed_bytes);
  return _mm256_add_epi32(dot, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

struct Bytes {
  static constexpr int64_t kTileBytes = 512;
  static constexpr int kOffset = 128;  // taken off while loading: signs are moved to the inputs
  static inline void Load(const char* at, __m256i* w) {
    POLYAD_UNROLL
    for (int g = 0; g < kWords; ++g) {
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
  static constexpr int kOffset = 0;
  static inline void Load(const char* at, __m256i* w) {
    const __m256i low = _mm256_set1_epi8(15);
    POLYAD_UNROLL
    for (int g = 0; g < kWords; g += 2) {
      const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at + g * 32));
      w[g] = _mm256_and_si256(bytes, low);
      w[g + 1] = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), low);
    }
  }
  static inline __m256i Add(__m256i dot, __m256i w, __m256i x) { return AddDot(dot, w, x); }
};

// How groups divide blocks, whether they have minima, and what their numbers are.
template <int kHalvesOfABlock, bool kWithMinima, bool kOfF16>
struct Groups {
  static constexpr int kHalves = kHalvesOfABlock;  // 2: a group for each half of a block
  static constexpr bool kMinima = kWithMinima;

  static inline __m256 Load(const char* numbers, int64_t lane) {
    if (!kOfF16) return _mm256_loadu_ps(reinterpret_cast<const float*>(numbers) + lane);
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(numbers + lane * 2)));
  }
};

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

// Where one row's inputs of a block are.
struct RowBlock {
  const int8_t* q;
  float scale;
  const int32_t* sums;  // one for each group
};

// One row, 8 columns, one block: dots of its groups, scaled, onto `sum`.
template <typename Codes, typename Form>
inline __m256 AddBlock(const RowBlock& row, const __m256i* w, const IntegerScaling& scaling,
                       int64_t lane, __m256 sum) {
  constexpr int kWordsOfGroup = kWords / Form::kHalves;
  POLYAD_UNROLL
  for (int half = 0; half < Form::kHalves; ++half) {
    __m256i dot = _mm256_set1_epi32((Codes::kOffset - scaling.zero) * row.sums[half]);
    POLYAD_UNROLL
    for (int g = half * kWordsOfGroup; g < (half + 1) * kWordsOfGroup; ++g) {
      int four;
      __builtin_memcpy(&four, row.q + g * 4, sizeof(four));
      dot = Codes::Add(dot, w[g], _mm256_set1_epi32(four));
    }
    const int64_t group = half * scaling.group_bytes;
    const __m256 d = Form::Load(scaling.scales + group, lane);
    sum =
        _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), _mm256_mul_ps(_mm256_set1_ps(row.scale), d), sum);
    if (Form::kMinima) {
      const __m256 total = _mm256_set1_ps(row.scale * static_cast<float>(row.sums[half]));
      sum = _mm256_fmadd_ps(Form::Load(scaling.minima + group, lane), total, sum);
    }
  }
  return sum;
}

// kRows rows by the 8 columns from `lane` on.
template <typename Codes, typename Form, int kRows>
void SumRows(const PanelTask& task, int64_t row, int64_t lane) {
  const int64_t num_blocks = task.depth / kDepthBlock;
  const QuantizedRows& x = task.quantized;
  const int32_t* block_sums = Form::kHalves == 2 ? x.half_sum : x.sum;
  IntegerScaling scaling = task.scaling;
  const char* codes =
      task.panels + lane / kTileColumns * Codes::kTileBytes + lane % kTileColumns * 4;
  int64_t left = scaling.blocks_per_group;
  __m256 sums[kRows];
  POLYAD_UNROLL
  for (int r = 0; r < kRows; ++r) sums[r] = _mm256_setzero_ps();
  for (int64_t block = 0; block < num_blocks; ++block, codes += 2 * Codes::kTileBytes) {
    _mm_prefetch(codes + kPrefetchBytes, _MM_HINT_T0);
    __m256i w[kWords];
    Codes::Load(codes, w);
    POLYAD_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const int64_t at = (row + r) * num_blocks + block;
      const RowBlock inputs{x.q + at * kDepthBlock, x.scale[at], block_sums + at * Form::kHalves};
      sums[r] = AddBlock<Codes, Form>(inputs, w, scaling, lane, sums[r]);
    }
    if (Form::kHalves == 1 && --left > 0) continue;
    left = scaling.blocks_per_group;
    scaling.scales += Form::kHalves * scaling.group_bytes;
    if (Form::kMinima) scaling.minima += Form::kHalves * scaling.group_bytes;
  }
  POLYAD_UNROLL
  for (int r = 0; r < kRows; ++r) StoreSums(task, row + r, lane, sums[r]);
}

template <typename Codes, typename Form>
void SumPanel(const PanelTask& task) {
  for (int64_t lane = 0; lane < task.columns; lane += kColumns) {
    int64_t row = 0;
    for (; row + kMaxRows <= task.rows; row += kMaxRows) {
      SumRows<Codes, Form, kMaxRows>(task, row, lane);
    }
    if (row < task.rows) SumRows<Codes, Form, 1>(task, row, lane);
  }
}

template <typename Codes>
void Integers(const PanelTask& task) {
  ForGroups<Groups>(task.scaling, [&task](auto form) { SumPanel<Codes, decltype(form)>(task); });
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

void Avx2Integers8(const PanelTask& task) { Integers<Bytes>(task); }
void Avx2Integers4(const PanelTask& task) { Integers<Nibbles>(task); }

}  // namespace polyad::cpu
