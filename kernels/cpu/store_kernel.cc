// Writes one token's k and v into its page (kv_layout.h), rounded as kv_codes.h says.

#include "kernels/cpu/code_dots.h"
#include "kernels/cpu/isa_functions.h"
#include "kernels/cpu/kv_layout.h"
#include "kernels/cpu/lanes.h"
#include "kernels/cpu/turn_lanes.h"

namespace polyad::cpu::POLYAD_ISA {
namespace {

// k goes down a column of the page, a pair of dimensions to a cache line.
void StoreKey(const PageToken& at, const float* k, uint16_t* page) {
  uint16_t* out = page + at.token * 2;
  for (int64_t d = 0; d < at.head_dim; d += kLanes) {
    uint16_t rounded[kLanes];
    Store(rounded, LoadFirst(k + d, at.head_dim - d < kLanes ? at.head_dim - d : kLanes));
    for (int64_t i = 0; i < kLanes; i += 2, out += kPairValues) std::memcpy(out, rounded + i, 4);
  }
}

void StoreKey(const PageToken& at, const float* k, float* page) {
  for (int64_t d = 0; d < at.head_dim; ++d) {
    page[d / 2 * kPairValues + d % 2 * kLanes + at.token] = k[d];
  }
}

template <typename Stored>
void StoreAs(const PageToken& at, const float* k, const float* v, Stored* page) {
  const int64_t padded_dim = at.layout.padded_dim;
  StoreKey(at, k, page);
  Stored* pair = page + padded_dim * kBlock + at.token / 2 * padded_dim * 2;
  for (int64_t d = 0; d < at.head_dim; d += kLanes) {
    const Lanes values = LoadFirst(v + d, at.head_dim - d < kLanes ? at.head_dim - d : kLanes);
    StoreInPair(pair + d * 2, values, at.token % 2);
  }
}

struct Scaling {
  uint16_t scale;  // bf16
  uint16_t low;
};

// Least and largest of `count` numbers, a multiple of 16; NaN as both where one is not finite.
void RangeOf(const float* x, int64_t count, float* least, float* largest) {
  Lanes low = Load(x);
  Lanes high = low;
  Lanes poison = Zero();
  for (int64_t i = 0; i < count; i += kLanes) {
    const Lanes values = Load(x + i);
    low = Min(values, low);
    high = Max(values, high);
    poison = poison + (values - values);
  }
  *least = Sum(poison) - MaxOf(Zero() - low);
  *largest = Sum(poison) + MaxOf(high);
}

// The nearest bf16 numbers above x >= 0 and below any x, or x itself.
uint16_t Bf16Above(float x) {
  return x == x ? static_cast<uint16_t>((BitsOf(x) + 0xffffu) >> 16) : uint16_t{0x7fc0};
}
uint16_t Bf16Below(float x) {
  return x < 0    ? Bf16Above(-x) | 0x8000u
         : x == x ? static_cast<uint16_t>(BitsOf(x) >> 16)
                  : uint16_t{0x7fc0};
}
float FromBf16(uint16_t bits) { return FloatOf(static_cast<uint32_t>(bits) << 16); }

// The least and the largest number get codes within the top one: both are rounded outwards.
Scaling Encode(const float* x, int64_t count, float top, uint8_t* codes) {
  float least;
  float largest;
  RangeOf(x, count, &least, &largest);
  const uint16_t low = Bf16Below(least);
  const float exact = (largest - FromBf16(low)) / top;
  const Scaling out{Bf16Above(exact < kLeastKvScale ? 0.0f : exact), low};
  const float scale = FromBf16(out.scale);
  const Lanes inverse = Set(scale == 0.0f ? 0.0f : 1.0f / scale);
  for (int64_t i = 0; i < count; i += kLanes) {
    const Lanes exact_codes = (Load(x + i) - Set(FromBf16(low))) * inverse;
    // NaN becomes 0: Max keeps its second operand then.
    StoreCodes(codes + i, Round(Min(Set(top), Max(exact_codes, Zero()))));
  }
  return out;
}

void PutScaling(const Scaling& scaling, int64_t token, char* line) {
  std::memcpy(line + token * 2, &scaling.scale, 2);
  std::memcpy(line + 2 * kBlock + token * 2, &scaling.low, 2);
}

// The lower four bits of two quads of codes to the bytes of one.
uint32_t Halves(uint32_t lower, uint32_t upper) {
  return (lower & 0x0f0f0f0fu) | (upper & 0x0f0f0f0fu) << 4;
}

// Of codes of five bits for 32 dimensions at a time: the lower four, and the fifth ones.
void PutKeyHalves(const PageToken& at, int64_t first, const uint8_t* codes, char* page) {
  uint32_t quads[8];
  std::memcpy(quads, codes, sizeof(quads));
  char* out = page + at.layout.KCode(at.token, first);
  uint32_t fifths = 0;
  for (int quad = 0; quad < 8; quad += 2, out += kLineBytes) {
    const uint32_t halves = Halves(quads[quad], quads[quad + 1]);
    std::memcpy(out, &halves, sizeof(halves));
    fifths |= (quads[quad] >> 4 & 0x01010101u) << quad;
    fifths |= (quads[quad + 1] >> 4 & 0x01010101u) << (quad + 1);
  }
  std::memcpy(page + at.layout.KFifths(first) + at.token * kQuad, &fifths, sizeof(fifths));
}

void PutKeyCodes(const PageToken& at, int64_t first, int64_t padded, const uint8_t* codes,
                 char* page) {
  if (at.layout.halves()) {
    for (int64_t d = 0; d < padded; d += 32) PutKeyHalves(at, first + d, codes + d, page);
    return;
  }
  char* out = page + at.layout.KCode(at.token, first);
  for (int64_t d = 0; d < padded; d += 4, out += kLineBytes) std::memcpy(out, codes + d, 4);
}

void PutValueCodes(const PageToken& at, int64_t first, int64_t padded, uint8_t* codes, char* page) {
  const int64_t token = at.token / kQuad * kQuad;
  char* line = page + at.layout.VCode(token, first);
  const bool halves = at.layout.halves();
  for (int64_t d = 0; d < padded; d += (halves ? 2 : 1) * kLanes, line += kLineBytes) {
    for (int64_t i = 0; halves && i < kLanes; ++i) {
      codes[d + i] = static_cast<uint8_t>(codes[d + i] | codes[d + kLanes + i] << 4);
    }
    StoreEveryFourth(line, codes + d, at.token % kQuad);
  }
}

// A group of a head's numbers, padded to `padded`: with the first one, which changes neither least
// nor largest; where heads are turned, with zeros, which then take part like any number.
void CopyGroup(const float* x, int64_t count, int64_t padded, bool turned, float* group) {
  for (int64_t i = 0; i < padded; ++i) group[i] = i < count ? x[i] : turned ? 0.0f : x[0];
  if (turned) TurnStored(padded, group);
}

// Calls put(group, first dimension, padded count, scaling, codes) for each group of one part.
template <typename Put>
void CodeHead(const PageToken& at, KvPart part, const float* x, Put put) {
  const KvLayout& layout = at.layout;
  const int64_t group_size = layout.GroupSize(part);
  const auto top = static_cast<float>(TopCodeOf(layout.format, part));
  float values[kKvGroup];
  uint8_t codes[kKvGroup];
  for (int64_t d = 0; d < layout.padded_dim; d += group_size) {
    const int64_t left = layout.padded_dim - d;
    const int64_t padded = left < group_size ? left : group_size;
    CopyGroup(x + d, at.head_dim - d, padded, IsTurned(layout.format), values);
    const Scaling scaling = Encode(values, padded, top, codes);
    put(d / group_size, d, padded, scaling, codes);
  }
}

void StoreCoded(const PageToken& at, const float* k, const float* v, char* page) {
  CodeHead(at, KvPart::kKey, k,
           [&](int64_t group, int64_t d, int64_t padded, const Scaling& scaling, uint8_t* codes) {
             PutScaling(scaling, at.token, page + at.layout.KScales(group));
             PutKeyCodes(at, d, padded, codes, page);
           });
  CodeHead(at, KvPart::kValue, v,
           [&](int64_t group, int64_t d, int64_t padded, const Scaling& scaling, uint8_t* codes) {
             PutScaling(scaling, at.token, page + at.layout.VScales(group));
             PutValueCodes(at, d, padded, codes, page);
           });
}

}  // namespace

void StoreToken(const PageToken& at, const float* k, const float* v, void* page) {
  switch (at.layout.format) {
    case KvFormat::kBF16:
      return StoreAs(at, k, v, static_cast<uint16_t*>(page));
    case KvFormat::kInt8:
    case KvFormat::kInt4:
      return StoreCoded(at, k, v, static_cast<char*>(page));
    case KvFormat::kAuto:
    case KvFormat::kF32:
      break;
  }
  StoreAs(at, k, v, static_cast<float*>(page));
}

}  // namespace polyad::cpu::POLYAD_ISA
