#pragma once

// Exact integer dots of stored K/V codes (0 to 255, 31 or 15) with 16-bit factors: queries times
// keys, weights times values. A "quad" is four codes of each of 16 lanes, a line of 64 bytes; its
// factors are four numbers within +-kTopFactor for all lanes. Sums are integers, so every level and
// the tile unit give the same ones; kFactorBytes hold the 64 factors of a group in the form that
// the level multiplies by: on AVX-512 their high and low bytes apart (256 high + low, both signed),
// else 16-bit words. Compiled once per level (lanes.h). A sum of 64 products stays below 2^30.

#include "kernels/cpu/lanes.h"

namespace polyad::cpu::POLYAD_ISA {

inline constexpr float kTopFactor = 32512.0f;  // 127 * 256: both bytes of +-it fit their signs
inline constexpr int64_t kFactorBytes = 128;
inline constexpr int64_t kQuad = 4;
inline constexpr int64_t kQuadBytes = 64;

#if defined(__AVX512F__)

struct Ints {
  __m512i v;
};
inline Ints ZeroInts() { return {_mm512_setzero_si512()}; }
inline Ints LoadInts(const int32_t* p) { return {_mm512_loadu_si512(p)}; }
inline Ints RoundToInts(Lanes x) { return {_mm512_cvtps_epi32(x.v)}; }
inline Lanes ToLanes(Ints x) { return {_mm512_cvtepi32_ps(x.v)}; }
inline Ints Combine(Ints high, Ints low) {
  return {_mm512_add_epi32(_mm512_slli_epi32(high.v, 8), low.v)};
}

// Factors [index, index + 16) of a group.
inline void StoreFactors(char* factors, int64_t index, Ints x) {
  const __m512i high = _mm512_srai_epi32(_mm512_add_epi32(x.v, _mm512_set1_epi32(128)), 8);
  const __m512i low = _mm512_sub_epi32(x.v, _mm512_slli_epi32(high, 8));
  auto* bytes = reinterpret_cast<__m128i*>(factors + index);
  _mm_storeu_si128(bytes, _mm512_cvtepi32_epi8(high));
  _mm_storeu_si128(bytes + 4, _mm512_cvtepi32_epi8(low));
}

struct Codes {
  __m512i v;
};
inline Codes LoadCodes(const char* line) { return {_mm512_loadu_si512(line)}; }
inline void LoadHalves(const char* line, Codes& lower, Codes& upper) {
  const __m512i bytes = _mm512_loadu_si512(line);
  const __m512i mask = _mm512_set1_epi8(15);
  lower.v = _mm512_and_si512(bytes, mask);
  upper.v = _mm512_and_si512(_mm512_srli_epi32(bytes, 4), mask);
}
// Line kLine of the four that hold 32 dimensions of keys, with the fifth bits of these.
template <int kQuadOfEight>
inline Codes WithFifths(Codes halves, __m512i fifths) {
  const __m512i fifth = kQuadOfEight < 4 ? _mm512_slli_epi32(fifths, 4 - kQuadOfEight)
                                         : _mm512_srli_epi32(fifths, kQuadOfEight - 4);
  // halves | (fifth & 16)
  return {_mm512_ternarylogic_epi32(halves.v, fifth, _mm512_set1_epi8(16), 0xf8)};
}
template <int kLine>
inline void LoadKeyHalves(const char* lines, const char* fifths, Codes& lower, Codes& upper) {
  const __m512i bits = _mm512_loadu_si512(fifths);
  LoadHalves(lines + kLine * kQuadBytes, lower, upper);
  lower = WithFifths<2 * kLine>(lower, bits);
  upper = WithFifths<2 * kLine + 1>(upper, bits);
}
// The 16 codes of a vector as bytes, and every fourth byte of a line, which is one token's.
inline void StoreCodes(uint8_t* p, Lanes x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x.v)));
}
inline void StoreEveryFourth(char* line, const uint8_t* codes, int64_t which) {
  const __m512i words =
      _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes)));
  const __m128i shift = _mm_cvtsi32_si128(static_cast<int>(which * 8));
  _mm512_mask_storeu_epi8(line, 0x1111111111111111u << which, _mm512_sll_epi32(words, shift));
}

struct Dots {
  __m512i high;
  __m512i low;
};
inline Dots ZeroDots() { return {_mm512_setzero_si512(), _mm512_setzero_si512()}; }
inline __m512i Broadcast(const char* p) {
  int32_t four;
  std::memcpy(&four, p, sizeof(four));
  return _mm512_set1_epi32(four);
}
inline void AddQuad(Dots& dots, Codes codes, const char* factors, int64_t quad) {
  dots.high = _mm512_dpbusd_epi32(dots.high, codes.v, Broadcast(factors + quad * 4));
  dots.low = _mm512_dpbusd_epi32(dots.low, codes.v, Broadcast(factors + 64 + quad * 4));
}
inline Ints ValueOf(Dots dots) { return Combine({dots.high}, {dots.low}); }

#elif defined(__AVX2__)

struct Ints {
  __m256i lo;
  __m256i hi;
};
inline Ints ZeroInts() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
inline Ints RoundToInts(Lanes x) { return {_mm256_cvtps_epi32(x.lo), _mm256_cvtps_epi32(x.hi)}; }
inline Lanes ToLanes(Ints x) { return {_mm256_cvtepi32_ps(x.lo), _mm256_cvtepi32_ps(x.hi)}; }

// Words 0 and 2 of a quad side by side, then 1 and 3: as the codes are taken apart below.
inline void StoreFactors(char* factors, int64_t index, Ints x) {
  const __m256i words =
      _mm256_permute4x64_epi64(_mm256_packs_epi32(x.lo, x.hi), _MM_SHUFFLE(3, 1, 2, 0));
  const __m256i first = _mm256_shufflelo_epi16(words, _MM_SHUFFLE(3, 1, 2, 0));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(factors + index * 2),
                      _mm256_shufflehi_epi16(first, _MM_SHUFFLE(3, 1, 2, 0)));
}

struct Codes {
  __m256i even[2];  // codes 0 and 2 of each lane as words
  __m256i odd[2];
};
inline Codes Apart(__m256i lo, __m256i hi) {
  const __m256i mask = _mm256_set1_epi16(255);
  return {{_mm256_and_si256(lo, mask), _mm256_and_si256(hi, mask)},
          {_mm256_srli_epi16(lo, 8), _mm256_srli_epi16(hi, 8)}};
}
inline Codes LoadCodes(const char* line) {
  const auto* bytes = reinterpret_cast<const __m256i*>(line);
  return Apart(_mm256_loadu_si256(bytes), _mm256_loadu_si256(bytes + 1));
}
inline void LoadHalves(const char* line, Codes& lower, Codes& upper) {
  const auto* bytes = reinterpret_cast<const __m256i*>(line);
  const __m256i lo = _mm256_loadu_si256(bytes);
  const __m256i hi = _mm256_loadu_si256(bytes + 1);
  const __m256i mask = _mm256_set1_epi8(15);
  lower = Apart(_mm256_and_si256(lo, mask), _mm256_and_si256(hi, mask));
  upper = Apart(_mm256_and_si256(_mm256_srli_epi16(lo, 4), mask),
                _mm256_and_si256(_mm256_srli_epi16(hi, 4), mask));
}
// Line kLine of the four that hold 32 dimensions of keys, with the fifth bits of these.
template <int kQuadOfEight>
inline __m256i FifthsOf(__m256i fifths) {
  const __m256i fifth = kQuadOfEight < 4 ? _mm256_slli_epi32(fifths, 4 - kQuadOfEight)
                                         : _mm256_srli_epi32(fifths, kQuadOfEight - 4);
  return _mm256_and_si256(fifth, _mm256_set1_epi8(16));
}
template <int kLine>
inline void LoadKeyHalves(const char* lines, const char* fifths, Codes& lower, Codes& upper) {
  const auto* bits = reinterpret_cast<const __m256i*>(fifths);
  const auto* bytes = reinterpret_cast<const __m256i*>(lines + kLine * kQuadBytes);
  const __m256i mask = _mm256_set1_epi8(15);
  __m256i low[2];
  __m256i high[2];
  for (int i = 0; i < 2; ++i) {
    const __m256i both = _mm256_loadu_si256(bytes + i);
    const __m256i fifth = _mm256_loadu_si256(bits + i);
    low[i] = _mm256_or_si256(_mm256_and_si256(both, mask), FifthsOf<2 * kLine>(fifth));
    high[i] = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(both, 4), mask),
                              FifthsOf<2 * kLine + 1>(fifth));
  }
  lower = Apart(low[0], low[1]);
  upper = Apart(high[0], high[1]);
}

struct Dots {
  __m256i lo;
  __m256i hi;
};
inline Dots ZeroDots() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
inline __m256i Broadcast(const char* p) {
  int32_t two;
  std::memcpy(&two, p, sizeof(two));
  return _mm256_set1_epi32(two);
}
inline void AddQuad(Dots& dots, const Codes& codes, const char* factors, int64_t quad) {
  const __m256i even = Broadcast(factors + quad * 8);
  const __m256i odd = Broadcast(factors + quad * 8 + 4);
  dots.lo = _mm256_add_epi32(dots.lo, _mm256_madd_epi16(codes.even[0], even));
  dots.hi = _mm256_add_epi32(dots.hi, _mm256_madd_epi16(codes.even[1], even));
  dots.lo = _mm256_add_epi32(dots.lo, _mm256_madd_epi16(codes.odd[0], odd));
  dots.hi = _mm256_add_epi32(dots.hi, _mm256_madd_epi16(codes.odd[1], odd));
}
inline Ints ValueOf(const Dots& dots) { return {dots.lo, dots.hi}; }

#else

struct Ints {
  int32_t v[kLanes];
};
inline Ints ZeroInts() { return {}; }
inline Ints RoundToInts(const Lanes& x) {
  Ints out;
  for (int64_t i = 0; i < kLanes; ++i) {
    // A NaN has no whole value; as the vector conversions do, give the lowest one.
    out.v[i] = x.v[i] == x.v[i] ? static_cast<int32_t>(nearbyintf(x.v[i])) : INT32_MIN;
  }
  return out;
}
inline Lanes ToLanes(const Ints& x) {
  return PerLane([&](int64_t i) { return static_cast<float>(x.v[i]); });
}
inline void StoreFactors(char* factors, int64_t index, const Ints& x) {
  int16_t words[kLanes];
  for (int64_t i = 0; i < kLanes; ++i) words[i] = static_cast<int16_t>(x.v[i]);
  std::memcpy(factors + index * 2, words, sizeof(words));
}

struct Codes {
  uint8_t v[kQuadBytes];
};
inline Codes LoadCodes(const char* line) {
  Codes codes;
  std::memcpy(codes.v, line, sizeof(codes.v));
  return codes;
}
inline void LoadHalves(const char* line, Codes& lower, Codes& upper) {
  const Codes bytes = LoadCodes(line);
  for (int64_t i = 0; i < kQuadBytes; ++i) {
    lower.v[i] = bytes.v[i] & 15;
    upper.v[i] = bytes.v[i] >> 4;
  }
}
// Line kLine of the four that hold 32 dimensions of keys, with the fifth bits of these.
template <int kLine>
inline void LoadKeyHalves(const char* lines, const char* fifths, Codes& lower, Codes& upper) {
  const Codes bits = LoadCodes(fifths);
  LoadHalves(lines + kLine * kQuadBytes, lower, upper);
  for (int64_t i = 0; i < kQuadBytes; ++i) {
    lower.v[i] = static_cast<uint8_t>(lower.v[i] | (bits.v[i] >> (2 * kLine) & 1) << 4);
    upper.v[i] = static_cast<uint8_t>(upper.v[i] | (bits.v[i] >> (2 * kLine + 1) & 1) << 4);
  }
}

using Dots = Ints;
inline Dots ZeroDots() { return {}; }
inline void AddQuad(Dots& dots, const Codes& codes, const char* factors, int64_t quad) {
  int16_t four[kQuad];
  std::memcpy(four, factors + quad * 8, sizeof(four));
  for (int64_t i = 0; i < kLanes; ++i) {
    for (int64_t j = 0; j < kQuad; ++j) dots.v[i] += codes.v[i * kQuad + j] * four[j];
  }
}
inline Ints ValueOf(const Dots& dots) { return dots; }

#endif

#if !defined(__AVX512F__)
inline void StoreCodes(uint8_t* p, const Lanes& x) {
  float values[kLanes];
  Store(values, x);
  for (int64_t i = 0; i < kLanes; ++i) p[i] = static_cast<uint8_t>(values[i]);
}
inline void StoreEveryFourth(char* line, const uint8_t* codes, int64_t which) {
  for (int64_t i = 0; i < kLanes; ++i) line[i * kQuad + which] = static_cast<char>(codes[i]);
}
#endif

}  // namespace polyad::cpu::POLYAD_ISA
