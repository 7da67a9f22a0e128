#pragma once

// Sixteen fp32 lanes with the same meaning on every instruction set, so that each row kernel is
// written once and compiled once per level (namespace polyad::cpu::POLYAD_ISA: no inline function
// is shared between levels). Every operation is lane by lane, and Sum folds halves onto one
// another, so a result never depends on the lane a value sits in. The levels agree bit for bit but
// for Fma, which rounds twice on scalar, and subnormals, rounded to bf16 or from CoarseExp2.

#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#else
#include <cmath>
#endif

#ifndef POLYAD_ISA
#define POLYAD_ISA scalar
#endif

namespace polyad::cpu::POLYAD_ISA {

inline constexpr int64_t kLanes = 16;

inline uint32_t BitsOf(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

inline float FloatOf(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// Nearest, ties to even; NaN stays NaN.
inline uint16_t RoundToBf16(float value) {
  const uint32_t bits = BitsOf(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

#if defined(__AVX512F__)

struct Lanes {
  __m512 v;
};

inline Lanes Zero() { return {_mm512_setzero_ps()}; }
inline Lanes Set(float x) { return {_mm512_set1_ps(x)}; }
inline Lanes Load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline Lanes Load(const uint16_t* p) {  // bf16
  const __m512i words =
      _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(words, 16))};
}
inline Lanes Gather(const float* base, const uint16_t* index) {
  const __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(index));
  return {_mm512_i32gather_ps(_mm512_cvtepu16_epi32(words), base, 4)};
}
inline Lanes Gather(const float* base, const int32_t* index) {
  return {_mm512_i32gather_ps(_mm512_loadu_si512(index), base, 4)};
}
inline void Store(float* p, Lanes x) { _mm512_storeu_ps(p, x.v); }
inline void Store(uint16_t* p, Lanes x) {
  const __m256bh bf16 = _mm512_cvtneps_pbh(x.v);
  std::memcpy(p, &bf16, sizeof(bf16));
}
// Sixteen of x, then sixteen of y.
inline void Store(uint16_t* p, Lanes x, Lanes y) {
  const __m512bh bf16 = _mm512_cvtne2ps_pbh(y.v, x.v);
  std::memcpy(p, &bf16, sizeof(bf16));
}
inline __mmask16 FirstLanes(int64_t n) { return static_cast<__mmask16>((1u << n) - 1u); }
inline Lanes LoadFirst(const float* p, int64_t n) {
  return {_mm512_maskz_loadu_ps(FirstLanes(n), p)};
}
inline void StoreFirst(float* p, Lanes x, int64_t n) {
  _mm512_mask_storeu_ps(p, FirstLanes(n), x.v);
}
// One of the two lanes of a pair (LoadPair): parity 0 or 1, the other stays.
inline void StoreInPair(uint16_t* p, Lanes x, int64_t parity) {
  const __m256bh bf16 = _mm512_cvtneps_pbh(x.v);
  __m256i halves;
  std::memcpy(&halves, &bf16, sizeof(halves));
  const __m512i words = _mm512_cvtepu16_epi32(halves);
  if (parity == 0) return _mm512_mask_storeu_epi16(p, 0x55555555u, words);
  _mm512_mask_storeu_epi16(p, 0xaaaaaaaau, _mm512_slli_epi32(words, 16));
}
inline void LoadPair(const uint16_t* p, Lanes& even, Lanes& odd) {
  const __m512i words = _mm512_loadu_si512(p);
  even.v = _mm512_castsi512_ps(_mm512_slli_epi32(words, 16));
  odd.v = _mm512_castsi512_ps(_mm512_and_si512(words, _mm512_set1_epi32(-65536)));
}
inline Lanes operator+(Lanes a, Lanes b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Lanes operator-(Lanes a, Lanes b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Lanes operator*(Lanes a, Lanes b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Lanes operator/(Lanes a, Lanes b) { return {_mm512_div_ps(a.v, b.v)}; }
inline Lanes Fma(Lanes a, Lanes b, Lanes c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline Lanes Max(Lanes a, Lanes b) { return {_mm512_max_ps(a.v, b.v)}; }
inline Lanes Min(Lanes a, Lanes b) { return {_mm512_min_ps(a.v, b.v)}; }
inline Lanes Round(Lanes a) { return {_mm512_roundscale_ps(a.v, 0)}; }
// a < b ? 0 : p * 2^n, for whole n in [-126, 127].
inline Lanes ScaleUnlessLess(Lanes a, Lanes b, Lanes p, Lanes n) {
  return {_mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_NLT_UQ), p.v, n.v)};
}
// a < b ? x : y
inline Lanes SelectLess(Lanes a, Lanes b, Lanes x, Lanes y) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ), y.v, x.v)};
}
// Lanes [begin, end) of x, `other` elsewhere; 0 <= begin <= end <= 16.
inline Lanes KeepBetween(Lanes x, int64_t begin, int64_t end, Lanes other) {
  const auto keep = static_cast<__mmask16>(FirstLanes(end) & ~FirstLanes(begin));
  return {_mm512_mask_blend_ps(keep, other.v, x.v)};
}
inline float Sum(Lanes x) {
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(x.v), _mm512_extractf32x8_ps(x.v, 1));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}
inline float MaxOf(Lanes x) { return _mm512_reduce_max_ps(x.v); }
inline float First(Lanes x) { return _mm512_cvtss_f32(x.v); }
// Lane r: the largest lane of rows[r].
inline Lanes MaxOfEach(const Lanes (&rows)[kLanes]) {
  __m512 x[kLanes];
  for (int64_t r = 0; r < kLanes; ++r) x[r] = rows[r].v;
  for (int64_t half = 8; half > 2; half /= 2) {  // folds quarters, of two rows at a time
    for (int64_t r = 0; r < half; ++r) {
      x[r] = _mm512_max_ps(_mm512_shuffle_f32x4(x[r], x[r + half], 0x88),
                           _mm512_shuffle_f32x4(x[r], x[r + half], 0xdd));
    }
  }
  for (int64_t half = 2; half > 0; half /= 2) {  // folds lanes of a quarter
    for (int64_t r = 0; r < half; ++r) {
      x[r] = _mm512_max_ps(_mm512_shuffle_ps(x[r], x[r + half], 0x88),
                           _mm512_shuffle_ps(x[r], x[r + half], 0xdd));
    }
  }
  const __m512i lane_of_row =
      _mm512_setr_epi32(0, 2, 1, 3, 8, 10, 9, 11, 4, 6, 5, 7, 12, 14, 13, 15);
  return {_mm512_permutexvar_ps(lane_of_row, x[0])};
}

#elif defined(__AVX2__)

struct Lanes {
  __m256 lo;
  __m256 hi;
};

inline Lanes Zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline Lanes Set(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline Lanes Load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline Lanes Load(const uint16_t* p) {  // bf16
  const auto* words = reinterpret_cast<const __m128i*>(p);
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(words)), 16)),
          _mm256_castsi256_ps(
              _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(words + 1)), 16))};
}
inline Lanes Gather(const float* base, const uint16_t* index) {
  const auto* words = reinterpret_cast<const __m128i*>(index);
  return {_mm256_i32gather_ps(base, _mm256_cvtepu16_epi32(_mm_loadu_si128(words)), 4),
          _mm256_i32gather_ps(base, _mm256_cvtepu16_epi32(_mm_loadu_si128(words + 1)), 4)};
}
inline Lanes Gather(const float* base, const int32_t* index) {
  const auto* words = reinterpret_cast<const __m256i*>(index);
  return {_mm256_i32gather_ps(base, _mm256_loadu_si256(words), 4),
          _mm256_i32gather_ps(base, _mm256_loadu_si256(words + 1), 4)};
}
inline void Store(float* p, Lanes x) {
  _mm256_storeu_ps(p, x.lo);
  _mm256_storeu_ps(p + 8, x.hi);
}
inline void Widen(__m256i words, __m256& even, __m256& odd) {
  even = _mm256_castsi256_ps(_mm256_slli_epi32(words, 16));
  odd = _mm256_castsi256_ps(_mm256_and_si256(words, _mm256_set1_epi32(-65536)));
}
inline void LoadPair(const uint16_t* p, Lanes& even, Lanes& odd) {
  const auto* words = reinterpret_cast<const __m256i*>(p);
  Widen(_mm256_loadu_si256(words), even.lo, odd.lo);
  Widen(_mm256_loadu_si256(words + 1), even.hi, odd.hi);
}
inline Lanes operator+(Lanes a, Lanes b) {
  return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
}
inline Lanes operator-(Lanes a, Lanes b) {
  return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
}
inline Lanes operator*(Lanes a, Lanes b) {
  return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}
inline Lanes operator/(Lanes a, Lanes b) {
  return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
}
inline Lanes Fma(Lanes a, Lanes b, Lanes c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
inline Lanes Max(Lanes a, Lanes b) {
  return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
}
inline Lanes Min(Lanes a, Lanes b) {
  return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)};
}
inline Lanes Round(Lanes a) { return {_mm256_round_ps(a.lo, 8), _mm256_round_ps(a.hi, 8)}; }
inline Lanes Floor(Lanes a) { return {_mm256_round_ps(a.lo, 9), _mm256_round_ps(a.hi, 9)}; }
inline __m256 PowerOfTwo(__m256 n) {
  const __m256i biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
  return _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23));
}
inline Lanes PowerOfTwo(Lanes n) { return {PowerOfTwo(n.lo), PowerOfTwo(n.hi)}; }
inline Lanes SelectLess(Lanes a, Lanes b, Lanes x, Lanes y) {
  return {_mm256_blendv_ps(y.lo, x.lo, _mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ)),
          _mm256_blendv_ps(y.hi, x.hi, _mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ))};
}
inline __m256 KeepBetween(__m256 x, int64_t begin, int64_t end, __m256 other) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const __m256i below_end = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(end)), lane);
  const __m256i below_begin = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(begin)), lane);
  const __m256i keep = _mm256_andnot_si256(below_begin, below_end);
  return _mm256_blendv_ps(other, x, _mm256_castsi256_ps(keep));
}
inline Lanes KeepBetween(Lanes x, int64_t begin, int64_t end, Lanes other) {
  return {KeepBetween(x.lo, begin, end, other.lo), KeepBetween(x.hi, begin - 8, end - 8, other.hi)};
}
inline float Sum(Lanes x) {
  const __m256 eight = _mm256_add_ps(x.lo, x.hi);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}
inline float MaxOf(Lanes x) {
  const __m256 eight = _mm256_max_ps(x.lo, x.hi);
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}
inline float First(Lanes x) { return _mm256_cvtss_f32(x.lo); }

#else

struct Lanes {
  float v[kLanes];
};

template <typename Function>
inline Lanes PerLane(Function function) {
  Lanes out;
  for (int64_t i = 0; i < kLanes; ++i) out.v[i] = function(i);
  return out;
}
inline Lanes Set(float x) {
  return PerLane([&](int64_t) { return x; });
}
inline Lanes Zero() { return Set(0.0f); }
inline Lanes Load(const float* p) {
  return PerLane([&](int64_t i) { return p[i]; });
}
inline Lanes Load(const uint16_t* p) {  // bf16
  return PerLane([&](int64_t i) { return FloatOf(static_cast<uint32_t>(p[i]) << 16); });
}
template <typename Index>
inline Lanes Gather(const float* base, const Index* index) {
  return PerLane([&](int64_t i) { return base[index[i]]; });
}
inline void Store(float* p, Lanes x) { std::memcpy(p, x.v, sizeof(x.v)); }
inline void LoadPair(const uint16_t* p, Lanes& even, Lanes& odd) {
  even = PerLane([&](int64_t i) { return FloatOf(static_cast<uint32_t>(p[2 * i]) << 16); });
  odd = PerLane([&](int64_t i) { return FloatOf(static_cast<uint32_t>(p[2 * i + 1]) << 16); });
}
inline Lanes operator+(const Lanes& a, const Lanes& b) {
  return PerLane([&](int64_t i) { return a.v[i] + b.v[i]; });
}
inline Lanes operator-(const Lanes& a, const Lanes& b) {
  return PerLane([&](int64_t i) { return a.v[i] - b.v[i]; });
}
inline Lanes operator*(const Lanes& a, const Lanes& b) {
  return PerLane([&](int64_t i) { return a.v[i] * b.v[i]; });
}
inline Lanes operator/(const Lanes& a, const Lanes& b) {
  return PerLane([&](int64_t i) { return a.v[i] / b.v[i]; });
}
inline Lanes Fma(const Lanes& a, const Lanes& b, const Lanes& c) { return a * b + c; }
inline Lanes Max(const Lanes& a, const Lanes& b) {
  return PerLane([&](int64_t i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
inline Lanes Min(const Lanes& a, const Lanes& b) {
  return PerLane([&](int64_t i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}
inline Lanes Round(const Lanes& a) {
  return PerLane([&](int64_t i) { return nearbyintf(a.v[i]); });
}
inline Lanes Floor(const Lanes& a) {
  return PerLane([&](int64_t i) { return floorf(a.v[i]); });
}
inline Lanes PowerOfTwo(const Lanes& n) {
  return PerLane([&](int64_t i) {
    // A NaN has no whole value; as the vector conversions do, give the lowest one.
    const int32_t whole = n.v[i] == n.v[i] ? static_cast<int32_t>(n.v[i]) : INT32_MIN;
    return FloatOf((static_cast<uint32_t>(whole) + 127u) << 23);
  });
}
inline Lanes SelectLess(const Lanes& a, const Lanes& b, const Lanes& x, const Lanes& y) {
  return PerLane([&](int64_t i) { return a.v[i] < b.v[i] ? x.v[i] : y.v[i]; });
}
inline Lanes KeepBetween(const Lanes& x, int64_t begin, int64_t end, const Lanes& other) {
  return PerLane([&](int64_t i) { return i >= begin && i < end ? x.v[i] : other.v[i]; });
}
inline float Sum(const Lanes& x) {
  Lanes fold = x;
  for (int64_t half = kLanes / 2; half > 0; half /= 2) {
    for (int64_t i = 0; i < half; ++i) fold.v[i] += fold.v[i + half];
  }
  return fold.v[0];
}
inline float MaxOf(const Lanes& x) {
  float max = x.v[0];
  for (int64_t i = 1; i < kLanes; ++i) max = x.v[i] > max ? x.v[i] : max;
  return max;
}
inline float First(const Lanes& x) { return x.v[0]; }

#endif

#if !defined(__AVX512F__)
inline Lanes ScaleUnlessLess(const Lanes& a, const Lanes& b, const Lanes& p, const Lanes& n) {
  return SelectLess(a, b, Zero(), p * PowerOfTwo(n));
}
inline void Store(uint16_t* p, const Lanes& x) {
  float values[kLanes];
  Store(values, x);
  for (int64_t i = 0; i < kLanes; ++i) p[i] = RoundToBf16(values[i]);
}
inline void Store(uint16_t* p, const Lanes& x, const Lanes& y) {
  Store(p, x);
  Store(p + kLanes, y);
}
inline Lanes MaxOfEach(const Lanes (&rows)[kLanes]) {
  float max[kLanes];
  for (int64_t r = 0; r < kLanes; ++r) max[r] = MaxOf(rows[r]);
  return Load(max);
}
inline Lanes LoadFirst(const float* p, int64_t n) {
  float values[kLanes] = {};
  std::memcpy(values, p, static_cast<size_t>(n) * sizeof(float));
  return Load(values);
}
inline void StoreFirst(float* p, const Lanes& x, int64_t n) {
  float values[kLanes];
  Store(values, x);
  std::memcpy(p, values, static_cast<size_t>(n) * sizeof(float));
}
inline void StoreInPair(uint16_t* p, const Lanes& x, int64_t parity) {
  uint16_t values[kLanes];
  Store(values, x);
  for (int64_t i = 0; i < kLanes; ++i) p[2 * i + parity] = values[i];
}
#endif

inline void StoreInPair(float* p, const Lanes& x, int64_t parity) { Store(p + parity * kLanes, x); }

inline Lanes LoadFirst(const uint16_t* p, int64_t n) {
  uint16_t values[kLanes] = {};
  std::memcpy(values, p, static_cast<size_t>(n) * sizeof(uint16_t));
  return Load(values);
}

inline void StoreFirst(uint16_t* p, const Lanes& x, int64_t n) {
  uint16_t values[kLanes];
  Store(values, x);
  std::memcpy(p, values, static_cast<size_t>(n) * sizeof(uint16_t));
}

// A group of 32 stored values: two lanes that belong together (kv_storage.h).
inline void LoadPair(const float* p, Lanes& even, Lanes& odd) {
  even = Load(p);
  odd = Load(p + kLanes);
}

inline void Store(float* p, const Lanes& x, const Lanes& y) {
  Store(p, x);
  Store(p + kLanes, y);
}

// 2^r for |r| <= 1/2, to 2.6e-9: interpolation at the Chebyshev nodes.
inline Lanes Exp2OfRest(Lanes r) {
  Lanes p = Set(0.0001546144469646172f);
  p = Fma(p, r, Set(0.0013400428177419153f));
  p = Fma(p, r, Set(0.00961805667852609f));
  p = Fma(p, r, Set(0.05550327226670944f));
  p = Fma(p, r, Set(0.24022650922288827f));
  p = Fma(p, r, Set(0.6931472067028321f));
  return Fma(p, r, Set(1.0f));
}

// 2^x for x <= 0, to 2 ulp; 0 below the normal numbers, NaN for NaN (Max keeps its second operand
// then).
inline Lanes Exp2(Lanes x) {
  const Lanes bounded = Max(Set(-126.0f), x);
  const Lanes whole = Round(bounded);
  return ScaleUnlessLess(x, Set(-126.0f), Exp2OfRest(bounded - whole), whole);
}

// 2^r for 0 <= r <= 1, to 3e-6; 1 for 0.
inline Lanes CoarseExp2OfRest(Lanes r) {
  Lanes p = Set(0.013426701538264751f);
  p = Fma(p, r, Set(0.052242446690797806f));
  p = Fma(p, r, Set(0.2412802129983902f));
  p = Fma(p, r, Set(0.6930448412895203f));
  return Fma(p, r, Set(1.0f));
}

// 2^x for x <= 0, to 3e-6, where the result meets numbers of 8 bits; NaN for NaN.
inline Lanes CoarseExp2(Lanes x) {
#if defined(__AVX512F__)
  // Both instructions take the whole part by themselves; x = -infinity has a rest of 0.
  return {_mm512_scalef_ps(CoarseExp2OfRest({_mm512_reduce_ps(x.v, 9)}).v, x.v)};
#else
  const Lanes bounded = Max(Set(-126.0f), x);
  const Lanes whole = Floor(bounded);
  return ScaleUnlessLess(x, Set(-126.0f), CoarseExp2OfRest(bounded - whole), whole);
#endif
}

// e^x for any x, as Exp2 (e^88 from there on): x = whole ln 2 + rest, with ln 2 in two parts so
// that rest keeps its precision.
inline Lanes Exp(Lanes x) {
  constexpr float kLog2E = 1.44269504088896341f;
  constexpr float kLn2High = 0.693145751953125f;  // 17 bits: whole * kLn2High is exact
  constexpr float kLn2Low = 1.42860682030941723212e-6f;
  const Lanes bounded = Min(Set(88.0f), Max(Set(-87.0f), x));
  const Lanes whole = Round(bounded * Set(kLog2E));
  const Lanes rest = Fma(whole, Set(-kLn2Low), Fma(whole, Set(-kLn2High), bounded));
  return ScaleUnlessLess(x, Set(-87.0f), Exp2OfRest(rest * Set(kLog2E)), whole);
}

}  // namespace polyad::cpu::POLYAD_ISA
