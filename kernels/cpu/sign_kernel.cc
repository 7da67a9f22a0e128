// y[o] += w sum_g scale[o, g] sum_{i in g} +-x[i] by looking sums up. A row becomes integers under
// one power of two, so that sums are exact and the same on every level in any order. For each run
// of kRun inputs a table holds their 2^kRun signed sums; a word of an output's bits is as many
// indices, and one shuffle looks up those of all lanes.

#include "kernels/cpu/gemm_kernels.h"
#include "kernels/cpu/isa_functions.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace polyad::cpu::POLYAD_ISA {
namespace {

#if defined(__AVX512F__)

constexpr int kSignLanes = 16;
constexpr int kRun = 4;
using Words = __m512i;

inline Words ZeroWords() { return _mm512_setzero_si512(); }
inline Words LoadWords(const uint32_t* at) { return _mm512_loadu_si512(at); }
inline Words NextRun(Words words) { return _mm512_srli_epi32(words, kRun); }
inline Words AddLooked(Words sums, Words words, const int32_t* table) {
  return _mm512_add_epi32(sums, _mm512_permutexvar_epi32(words, _mm512_load_si512(table)));
}
inline void StoreWords(Words words, int32_t* to) { _mm512_storeu_si512(to, words); }
inline void Prefetch(const char* at) { _mm_prefetch(at, _MM_HINT_T1); }

// Lane n has input k's sign plus where bit k of n is set.
inline void MakeTable(const int32_t* twice, int32_t* table) {
  const int32_t none = -(twice[0] + twice[1] + twice[2] + twice[3]) / 2;
  const __m512i low =
      _mm512_add_epi32(_mm512_set1_epi32(none), _mm512_maskz_set1_epi32(0xaaaa, twice[0]));
  const __m512i middle = _mm512_add_epi32(_mm512_maskz_set1_epi32(0xcccc, twice[1]),
                                          _mm512_maskz_set1_epi32(0xf0f0, twice[2]));
  const __m512i high = _mm512_add_epi32(low, _mm512_maskz_set1_epi32(0xff00, twice[3]));
  _mm512_store_si512(table, _mm512_add_epi32(middle, high));
}

#else

// Lane n has input k's sign plus where bit k of n is set.
inline void MakeTable(const int32_t* twice, int32_t* table);

#if defined(__AVX2__)

constexpr int kSignLanes = 8;
constexpr int kRun = 3;
using Words = __m256i;

inline Words ZeroWords() { return _mm256_setzero_si256(); }
inline Words LoadWords(const uint32_t* at) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
}
inline Words NextRun(Words words) { return _mm256_srli_epi32(words, kRun); }
inline Words AddLooked(Words sums, Words words, const int32_t* table) {
  const __m256i sum_of = _mm256_load_si256(reinterpret_cast<const __m256i*>(table));
  return _mm256_add_epi32(sums, _mm256_permutevar8x32_epi32(sum_of, words));
}
inline void StoreWords(Words words, int32_t* to) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), words);
}
inline void Prefetch(const char* at) { _mm_prefetch(at, _MM_HINT_T1); }

#else

constexpr int kSignLanes = 8;
constexpr int kRun = 4;
struct Words {
  uint32_t lane[kSignLanes];
};

inline Words ZeroWords() { return {}; }
inline Words LoadWords(const uint32_t* at) {
  Words words;
  for (int i = 0; i < kSignLanes; ++i) words.lane[i] = at[i];
  return words;
}
inline Words NextRun(Words words) {
  for (uint32_t& lane : words.lane) lane >>= kRun;
  return words;
}
inline Words AddLooked(Words sums, Words words, const int32_t* table) {
  constexpr uint32_t kIndex = (1u << kRun) - 1;
  for (int i = 0; i < kSignLanes; ++i) {
    sums.lane[i] += static_cast<uint32_t>(table[words.lane[i] & kIndex]);
  }
  return sums;
}
inline void StoreWords(Words words, int32_t* to) {
  for (int i = 0; i < kSignLanes; ++i) to[i] = static_cast<int32_t>(words.lane[i]);
}
inline void Prefetch(const char* at) { __builtin_prefetch(at); }

#endif

inline void MakeTable(const int32_t* twice, int32_t* table) {
  int32_t none = 0;
  for (int k = 0; k < kRun; ++k) none -= twice[k] / 2;
  table[0] = none;
  for (int k = 0; k < kRun; ++k) {
    for (int n = 0; n < 1 << k; ++n) table[(1 << k) + n] = table[n] + twice[k];
  }
}

#endif

constexpr int kTableSize = 1 << kRun;
constexpr int kRunsPerWord = 32 / kRun;
constexpr int kInputsPerWord = kRunsPerWord * kRun;
constexpr int64_t kAheadBytes = 2048;

// The row as integers, twice each: x 2^shift to the nearest, where |x| 2^shift < 2^bits.
struct RowScale {
  float up = 0.0f;    // 2^shift
  float down = 0.0f;  // 2^-shift
  bool finite = true;
};

inline float PowerOfTwo(int exponent) {
  const uint32_t bits = static_cast<uint32_t>(exponent + 127) << 23;
  float power;
  __builtin_memcpy(&power, &bits, sizeof(power));
  return power;
}

// Sums of `in` integers stay under 2^30; the rounding trick below takes 22 bits.
inline int BitsFor(int64_t in) {
  int bits = 29;
  while (bits > 1 && (int64_t{1} << (29 - bits)) < in) --bits;
  return bits < 22 ? bits : 22;
}

RowScale ScaleOf(const float* x, int64_t in) {
  constexpr uint32_t kInfinity = 0x7f800000u;
  uint32_t largest = 0;
  for (int64_t i = 0; i < in; ++i) {
    uint32_t bits;
    __builtin_memcpy(&bits, x + i, sizeof(bits));
    bits &= 0x7fffffffu;
    largest = bits > largest ? bits : largest;
  }
  RowScale scale;
  scale.finite = largest < kInfinity;
  int shift = BitsFor(in) - (static_cast<int>(largest >> 23) - 126);
  shift = shift < -126 ? -126 : shift > 126 ? 126 : shift;
  scale.up = PowerOfTwo(shift);
  scale.down = PowerOfTwo(-shift);
  return scale;
}

void FillTables(const SignPanels& signs, const float* x, float up, int32_t* tables) {
  constexpr float kRound = 12582912.0f;  // 1.5 2^23: its ulp is one
  int32_t kRoundBits;
  __builtin_memcpy(&kRoundBits, &kRound, sizeof(kRoundBits));
  for (int64_t group = 0; group < signs.groups; ++group) {
    const float* from = x + group * signs.group_inputs;
    for (int64_t word = 0; word < signs.group_words; ++word) {
      int32_t twice[kInputsPerWord];
      const int64_t first = word * kInputsPerWord;
      for (int64_t i = 0; i < kInputsPerWord; ++i) {
        const float value = first + i < signs.group_inputs ? from[first + i] * up + kRound : kRound;
        int32_t bits;
        __builtin_memcpy(&bits, &value, sizeof(bits));
        twice[i] = 2 * (bits - kRoundBits);
      }
      for (int run = 0; run < kRunsPerWord; ++run, tables += kTableSize) {
        MakeTable(twice + run * kRun, tables);
      }
    }
  }
}

// kWidth lanes of outputs of one panel.
template <int kWidth>
void AddPanel(const SignPanels& signs, const uint32_t* words, const float* scale,
              const int32_t* tables, const SignRow& row) {
  float totals[kWidth * kSignLanes] = {};
  for (int64_t group = 0; group < signs.groups; ++group) {
    Words sums[kWidth];
    for (int n = 0; n < kWidth; ++n) sums[n] = ZeroWords();
    for (int64_t word = 0; word < signs.group_words; ++word) {
      const char* fetch = row.ahead == nullptr ? reinterpret_cast<const char*>(words) + kAheadBytes
                                               : Advance(row.ahead, kWidth * kSignLanes * 4);
      Words left[kWidth];
      for (int n = 0; n < kWidth; ++n) {
        left[n] = LoadWords(words + n * kSignLanes);
        Prefetch(fetch + n * kSignLanes * 4);
      }
      words += kWidth * kSignLanes;
      for (int run = 0; run < kRunsPerWord; ++run, tables += kTableSize) {
        for (int n = 0; n < kWidth; ++n) {
          sums[n] = AddLooked(sums[n], left[n], tables);
          left[n] = NextRun(left[n]);
        }
      }
    }
    int32_t sum[kWidth * kSignLanes];
    for (int n = 0; n < kWidth; ++n) StoreWords(sums[n], sum + n * kSignLanes);
    for (int o = 0; o < kWidth * kSignLanes; ++o) {
      totals[o] += scale[o * signs.scale_stride] * static_cast<float>(sum[o]);
    }
    scale += signs.scale_stride == 0 ? 0 : kWidth * kSignLanes;
  }
  for (int64_t o = 0; o < row.outputs; ++o) row.y[o] += row.weight * totals[o];
}

}  // namespace

SignLevel SignLevelOf() { return {kSignLanes, kInputsPerWord, kTableSize * kRunsPerWord}; }

void AddSigns(const SignPanels& signs, const SignRow& task, int32_t* tables) {
  const RowScale row_scale = ScaleOf(task.x, signs.groups * signs.group_inputs);
  if (!row_scale.finite) {
    for (int64_t o = 0; o < signs.out; ++o) task.y[o] = __builtin_nanf("");
    return;
  }
  FillTables(signs, task.x, row_scale.up, tables);
  const int64_t panel = kSignPanel * kSignLanes;
  const int64_t words = signs.groups * signs.group_words;
  for (int64_t first = 0; first < signs.out; first += panel) {
    const int64_t left = signs.out - first;
    SignRow part = task;
    part.weight = task.weight * row_scale.down;
    part.y = task.y + first;
    part.outputs = left < panel ? left : panel;
    const uint32_t* at = signs.words + first * words;
    const float* scale = signs.scale + (signs.scale_stride == 0 ? 0 : first * signs.groups);
    switch ((part.outputs + kSignLanes - 1) / kSignLanes) {
      case 1:
        AddPanel<1>(signs, at, scale, tables, part);
        break;
      case 2:
        AddPanel<2>(signs, at, scale, tables, part);
        break;
      case 3:
        AddPanel<3>(signs, at, scale, tables, part);
        break;
      default:
        AddPanel<kSignPanel>(signs, at, scale, tables, part);
    }
  }
}

}  // namespace polyad::cpu::POLYAD_ISA
