// w = scale (code - zero) + minimum, scale levels[code] or scale E4M3(code), rounded to bf16: a
// panel of grouped rows made ready for the bf16 products (grouped_panel.h has both layouts); and a
// panel's scales and minima alone, for products that take integer codes as they are.

#include "kernels/cpu/code_lanes.h"
#include "kernels/cpu/isa_functions.h"

namespace polyad::cpu::POLYAD_ISA {
namespace {

constexpr int64_t kColumns = 32;  // of a panel
constexpr int64_t kBlock = 32;    // inputs
constexpr int64_t kHalf = 16;

// One group's numbers for 16 columns.
struct Scaling {
  Lanes scale;
  Lanes zero;
  Lanes minimum;
};

// What a word of codes holds.
struct Nibbles {
  static constexpr int kBits = 4;
  static constexpr bool kAffine = true;
  static inline Lanes At(const GroupedPanel&, const Words& words, int shift) {
    return NibbleAt(words, shift);
  }
};
struct Bytes {
  static constexpr int kBits = 8;
  static constexpr bool kAffine = true;
  static inline Lanes At(const GroupedPanel&, const Words& words, int shift) {
    return ByteAt(words, shift);
  }
};
struct Levels {
  static constexpr int kBits = 4;
  static constexpr bool kAffine = false;
  static inline Lanes At(const GroupedPanel& panel, const Words& words, int shift) {
    return LevelAt(words, shift, panel.levels);
  }
};
struct Floats8 {
  static constexpr int kBits = 8;
  static constexpr bool kAffine = false;
  static inline Lanes At(const GroupedPanel&, const Words& words, int shift) {
    return Float8At(words, shift);
  }
};

inline Lanes LoadPlane(const GroupedPanel& panel, int64_t group, int64_t plane, int64_t tile) {
  const int64_t column = tile * kLanes;
  const int64_t at = (group * panel.planes + plane) * kColumns + column;
  if (panel.supers != nullptr) {
    const int64_t super = group / panel.groups_per_super * panel.planes + plane;
    return LoadF16(panel.supers + super * kColumns + column) *
           LoadBytes(reinterpret_cast<const int8_t*>(panel.groups) + at);
  }
  if (panel.f16) return LoadF16(reinterpret_cast<const uint16_t*>(panel.groups) + at);
  return Load(reinterpret_cast<const float*>(panel.groups) + at);
}

template <typename Code>
inline Scaling LoadScaling(const GroupedPanel& panel, int64_t group, int64_t tile) {
  Scaling scaling{LoadPlane(panel, group, 0, tile), Zero(), Zero()};
  if (!Code::kAffine) return scaling;
  scaling.zero = panel.has_zero ? LoadPlane(panel, group, 1, tile) : Set(panel.zero);
  if (panel.has_minimum) scaling.minimum = LoadPlane(panel, group, panel.planes - 1, tile);
  return scaling;
}

template <typename Code>
inline Lanes Value(const Lanes& code, const Scaling& scaling) {
  if (!Code::kAffine) return scaling.scale * code;
  return Fma(scaling.scale, code - scaling.zero, scaling.minimum);
}

// Inputs [first, first + 16) of one tile; returns where the next pair goes.
template <typename Code, bool kOrdered>
uint16_t* DecodeHalf(const GroupedPanel& panel, const uint32_t* codes, int64_t first, int64_t tile,
                     int64_t width, uint16_t* out) {
  constexpr int kPerWord = 32 / Code::kBits;
  Scaling even = LoadScaling<Code>(
      panel, kOrdered ? panel.group_of[first] : first / kHalf / panel.halves_per_group, tile);
  Scaling odd = even;
  for (int64_t word = 0; word < kHalf / kPerWord; ++word) {
    const Words words = LoadWords(codes + word * kLanes);
    for (int i = 0; i < kPerWord; i += 2, out += 2 * width) {
      if (kOrdered) {
        const uint16_t* group = panel.group_of + first + word * kPerWord + i;
        even = LoadScaling<Code>(panel, group[0], tile);
        odd = LoadScaling<Code>(panel, group[1], tile);
      }
      const int shift = i % 4 * 8 + i / 4 * 4;
      StorePairs(out, Value<Code>(Code::At(panel, words, shift), even),
                 Value<Code>(Code::At(panel, words, shift + 8), odd));
    }
  }
  return out;
}

template <typename Code, bool kOrdered>
void DecodePanel(const GroupedPanel& panel, uint16_t* out) {
  constexpr int64_t kWords = kBlock * Code::kBits / 32 * kLanes;  // of a block's tile
  for (int64_t block = 0; block < panel.depth; block += kBlock) {
    for (int64_t tile = 0; tile * kLanes < panel.columns; ++tile) {
      const int64_t left = panel.columns - tile * kLanes;
      const int64_t width = left < kLanes ? left : kLanes;
      const uint32_t* codes = panel.codes + (block / kBlock * 2 + tile) * kWords;
      out = DecodeHalf<Code, kOrdered>(panel, codes, block, tile, width, out);
      out = DecodeHalf<Code, kOrdered>(panel, codes + kWords / 2, block + kHalf, tile, width, out);
    }
  }
}

template <typename Code>
void DecodeAs(const GroupedPanel& panel, uint16_t* out) {
  if (panel.group_of != nullptr) return DecodePanel<Code, true>(panel, out);
  DecodePanel<Code, false>(panel, out);
}

}  // namespace

void DecodeGroupedPanel(const GroupedPanel& panel, uint16_t* out) {
  switch (panel.kind) {
    case CodeKind::kLevels:
      return DecodeAs<Levels>(panel, out);
    case CodeKind::kFloat8:
      return DecodeAs<Floats8>(panel, out);
    case CodeKind::kInteger:
      if (panel.bits == 4) return DecodeAs<Nibbles>(panel, out);
      return DecodeAs<Bytes>(panel, out);
  }
}

void DecodeGroupedScaling(const GroupedPanel& panel, float offset, float* scales, float* minima) {
  for (int64_t group = 0; group < panel.num_groups; ++group) {
    for (int64_t tile = 0; tile < kColumns / kLanes; ++tile) {
      const Scaling scaling = LoadScaling<Bytes>(panel, group, tile);
      const int64_t at = group * kColumns + tile * kLanes;
      Store(scales + at, scaling.scale);
      if (minima == nullptr) continue;
      const Lanes zero = panel.has_zero ? Set(offset) - scaling.zero : Zero();
      Store(minima + at, Fma(scaling.scale, zero, scaling.minimum));
    }
  }
}

}  // namespace polyad::cpu::POLYAD_ISA
