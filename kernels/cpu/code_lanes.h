#pragma once

// Sixteen codes of a quantised panel as the fp32 lanes of lanes.h: small integers cut out of 32-bit
// words, looked up in 16 levels, or widened from 8-bit floats; and pairs of lanes rounded to bf16.
// Compiled once per level; the levels agree bit for bit but for subnormals rounded to bf16.

#include "kernels/cpu/lanes.h"

namespace polyad::cpu::POLYAD_ISA {

inline constexpr float kFloat8Bias = 0x1p120f;  // between the exponents of E4M3 and fp32

#if defined(__AVX512F__)

struct Words {
  __m512i v;
};

inline Words LoadWords(const uint32_t* p) { return {_mm512_loadu_si512(p)}; }
inline __m512i Shifted(Words words, int shift) {
  return _mm512_srl_epi32(words.v, _mm_cvtsi32_si128(shift));
}
inline Lanes NibbleAt(Words words, int shift) {
  return {_mm512_cvtepi32_ps(_mm512_and_si512(Shifted(words, shift), _mm512_set1_epi32(15)))};
}
inline Lanes ByteAt(Words words, int shift) {
  return {_mm512_cvtepi32_ps(_mm512_and_si512(Shifted(words, shift), _mm512_set1_epi32(255)))};
}
inline Lanes LevelAt(Words words, int shift, const float* levels) {
  return {_mm512_permutexvar_ps(Shifted(words, shift), _mm512_loadu_ps(levels))};
}
inline Lanes Float8At(Words words, int shift) {
  const __m512i code = Shifted(words, shift);
  const __m512i magnitude = _mm512_slli_epi32(_mm512_and_si512(code, _mm512_set1_epi32(0x7f)), 20);
  const __m512i sign = _mm512_slli_epi32(_mm512_and_si512(code, _mm512_set1_epi32(0x80)), 24);
  return {_mm512_mul_ps(_mm512_castsi512_ps(_mm512_or_si512(magnitude, sign)),
                        _mm512_set1_ps(kFloat8Bias))};
}
inline Lanes LoadF16(const uint16_t* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
inline Lanes LoadBytes(const int8_t* p) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes))};
}
// p[2 i] = even[i], p[2 i + 1] = odd[i].
inline void StorePairs(uint16_t* p, Lanes even, Lanes odd) {
  const __m256bh low = _mm512_cvtneps_pbh(even.v);
  const __m256bh high = _mm512_cvtneps_pbh(odd.v);
  __m256i words[2];
  std::memcpy(&words[0], &low, sizeof(low));
  std::memcpy(&words[1], &high, sizeof(high));
  const __m512i upper = _mm512_slli_epi32(_mm512_cvtepu16_epi32(words[1]), 16);
  _mm512_storeu_si512(p, _mm512_or_si512(_mm512_cvtepu16_epi32(words[0]), upper));
}

#elif defined(__AVX2__)

struct Words {
  __m256i lo;
  __m256i hi;
};

inline Words LoadWords(const uint32_t* p) {
  const auto* words = reinterpret_cast<const __m256i*>(p);
  return {_mm256_loadu_si256(words), _mm256_loadu_si256(words + 1)};
}
inline Words Masked(Words words, int shift, int mask) {
  const __m128i count = _mm_cvtsi32_si128(shift);
  const __m256i keep = _mm256_set1_epi32(mask);
  return {_mm256_and_si256(_mm256_srl_epi32(words.lo, count), keep),
          _mm256_and_si256(_mm256_srl_epi32(words.hi, count), keep)};
}
inline Lanes NibbleAt(Words words, int shift) {
  const Words code = Masked(words, shift, 15);
  return {_mm256_cvtepi32_ps(code.lo), _mm256_cvtepi32_ps(code.hi)};
}
inline Lanes ByteAt(Words words, int shift) {
  const Words code = Masked(words, shift, 255);
  return {_mm256_cvtepi32_ps(code.lo), _mm256_cvtepi32_ps(code.hi)};
}
inline __m256 LevelsOf(__m256i code, const float* levels) {
  const __m256 low = _mm256_permutevar8x32_ps(_mm256_loadu_ps(levels), code);
  const __m256 high = _mm256_permutevar8x32_ps(_mm256_loadu_ps(levels + 8), code);
  return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(code, 28)));
}
inline Lanes LevelAt(Words words, int shift, const float* levels) {
  const Words code = Masked(words, shift, 15);
  return {LevelsOf(code.lo, levels), LevelsOf(code.hi, levels)};
}
inline __m256 Float8Of(__m256i code) {
  const __m256i magnitude = _mm256_slli_epi32(_mm256_and_si256(code, _mm256_set1_epi32(0x7f)), 20);
  const __m256i sign = _mm256_slli_epi32(_mm256_and_si256(code, _mm256_set1_epi32(0x80)), 24);
  return _mm256_mul_ps(_mm256_castsi256_ps(_mm256_or_si256(magnitude, sign)),
                       _mm256_set1_ps(kFloat8Bias));
}
inline Lanes Float8At(Words words, int shift) {
  const Words code = Masked(words, shift, 255);
  return {Float8Of(code.lo), Float8Of(code.hi)};
}
inline Lanes LoadF16(const uint16_t* p) {
  const auto* halves = reinterpret_cast<const __m128i*>(p);
  return {_mm256_cvtph_ps(_mm_loadu_si128(halves)), _mm256_cvtph_ps(_mm_loadu_si128(halves + 1))};
}
inline Lanes LoadBytes(const int8_t* p) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)),
          _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8)))};
}
// Nearest, ties to even, in the upper half of each word; NaN stays NaN.
inline __m256i RoundedUpper(__m256 x) {
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  return _mm256_castps_si256(_mm256_blendv_ps(
      _mm256_castsi256_ps(rounded), _mm256_castsi256_ps(quiet), _mm256_cmp_ps(x, x, _CMP_UNORD_Q)));
}
inline __m256i PairOf(__m256 even, __m256 odd) {
  const __m256i upper = _mm256_set1_epi32(-65536);
  return _mm256_or_si256(_mm256_srli_epi32(RoundedUpper(even), 16),
                         _mm256_and_si256(RoundedUpper(odd), upper));
}
inline void StorePairs(uint16_t* p, Lanes even, Lanes odd) {
  auto* words = reinterpret_cast<__m256i*>(p);
  _mm256_storeu_si256(words, PairOf(even.lo, odd.lo));
  _mm256_storeu_si256(words + 1, PairOf(even.hi, odd.hi));
}

#else

struct Words {
  uint32_t v[kLanes];
};

inline Words LoadWords(const uint32_t* p) {
  Words words;
  std::memcpy(words.v, p, sizeof(words.v));
  return words;
}
inline Lanes NibbleAt(const Words& words, int shift) {
  return PerLane([&](int64_t i) { return static_cast<float>((words.v[i] >> shift) & 15u); });
}
inline Lanes ByteAt(const Words& words, int shift) {
  return PerLane([&](int64_t i) { return static_cast<float>((words.v[i] >> shift) & 255u); });
}
inline Lanes LevelAt(const Words& words, int shift, const float* levels) {
  return PerLane([&](int64_t i) { return levels[(words.v[i] >> shift) & 15u]; });
}
inline Lanes Float8At(const Words& words, int shift) {
  return PerLane([&](int64_t i) {
    const uint32_t code = words.v[i] >> shift;
    return FloatOf(((code & 0x7fu) << 20) | ((code & 0x80u) << 24)) * kFloat8Bias;
  });
}
inline Lanes LoadF16(const uint16_t* p) {
  return PerLane([&](int64_t i) {
    // The exponent's bias is off by 112, which a product mends, subnormals included.
    const uint32_t bits = ((p[i] & 0x8000u) << 16) | ((p[i] & 0x7fffu) << 13);
    return FloatOf(bits) * 0x1p112f;
  });
}
inline Lanes LoadBytes(const int8_t* p) {
  return PerLane([&](int64_t i) { return static_cast<float>(p[i]); });
}
inline void StorePairs(uint16_t* p, const Lanes& even, const Lanes& odd) {
  for (int64_t i = 0; i < kLanes; ++i) {
    p[2 * i] = RoundToBf16(even.v[i]);
    p[2 * i + 1] = RoundToBf16(odd.v[i]);
  }
}

#endif

}  // namespace polyad::cpu::POLYAD_ISA
