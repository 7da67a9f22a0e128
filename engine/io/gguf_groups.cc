#include "engine/io/gguf_groups.h"

#include <algorithm>
#include <cstring>

#include "engine/base/check.h"
#include "engine/io/float_bits.h"
#include "engine/io/gguf_types.h"

namespace polyad {

namespace {

// Where a block's parts go.
struct Groups {
  uint8_t* codes = nullptr;
  float* scales = nullptr;
  float* minima = nullptr;
  int8_t* scale_factors = nullptr;  // of K-quants
  int8_t* minimum_factors = nullptr;
};

float LoadHalf(const uint8_t* bytes) {
  uint16_t half;
  std::memcpy(&half, bytes, sizeof(half));
  return HalfToFloat(half);
}

uint8_t NibbleOf(const uint8_t* quants, int i) {
  return static_cast<uint8_t>(i < 16 ? quants[i] & 15 : quants[i - 16] >> 4);
}

void FiveBits(const uint8_t* high_bits, const uint8_t* low, uint8_t* codes) {
  uint32_t high;
  std::memcpy(&high, high_bits, sizeof(high));
  for (int i = 0; i < 32; ++i) {
    codes[i] = static_cast<uint8_t>(NibbleOf(low, i) | (((high >> i) & 1u) << 4));
  }
}

// {f16 d; u32 high bits; u8 low[16]}: x = d * (q - 16), q = low nibble + 16 * high bit.
void ReadQ5_0(const uint8_t* block, const Groups& out) {
  out.scales[0] = LoadHalf(block);
  FiveBits(block + 2, block + 6, out.codes);
}

// {f16 d, f16 m; u32 high bits; u8 low[16]}: x = d * q + m.
void ReadQ5_1(const uint8_t* block, const Groups& out) {
  out.scales[0] = LoadHalf(block);
  out.minima[0] = LoadHalf(block + 2);
  FiveBits(block + 4, block + 8, out.codes);
}

// Element i of the 2-bit integers of Q2_K and Q3_K.
int TwoBits(const uint8_t* quants, int i) {
  return (quants[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2)) & 3;
}

// {u8 scales[16]; u8 q[64]; f16 d, f16 m}: x = (d * (scale & 15)) * q - m * (scale >> 4), q of 2
// bits, 16 per scale.
void ReadQ2_K(const uint8_t* block, const Groups& out) {
  out.scales[0] = LoadHalf(block + 80);
  out.minima[0] = -LoadHalf(block + 82);
  for (int group = 0; group < 16; ++group) {
    out.scale_factors[group] = static_cast<int8_t>(block[group] & 15);
    out.minimum_factors[group] = static_cast<int8_t>(block[group] >> 4);
  }
  for (int i = 0; i < 256; ++i) out.codes[i] = static_cast<uint8_t>(TwoBits(block + 16, i));
}

// The 16 six-bit scales of Q3_K in 12 bytes: low 4 bits in the first 8 bytes, high 2 bits in the
// last 4.
int ScaleOfQ3_K(const uint8_t* packed, int index) {
  const int low = index < 8 ? packed[index] & 15 : packed[index - 8] >> 4;
  const int high = (packed[8 + index % 4] >> (index / 4 * 2)) & 3;
  return (low | (high << 4)) - 32;
}

// {u8 high[32]; u8 q[64]; u8 scales[12]; f16 d}: x = d * scale * (q - (high bit ? 0 : 4)), q of 2
// bits.
void ReadQ3_K(const uint8_t* block, const Groups& out) {
  out.scales[0] = LoadHalf(block + 108);
  for (int group = 0; group < 16; ++group) {
    out.scale_factors[group] = static_cast<int8_t>(ScaleOfQ3_K(block + 96, group));
  }
  for (int i = 0; i < 256; ++i) {
    const int high = (block[i % 32] >> (i / 32)) & 1;
    out.codes[i] = static_cast<uint8_t>(TwoBits(block + 32, i) | (high << 2));
  }
}

// The 8 pairs of six-bit scales and minimums of Q4_K and Q5_K in 12 bytes.
void ReadPairs(const uint8_t* block, const Groups& out) {
  out.scales[0] = LoadHalf(block);
  out.minima[0] = -LoadHalf(block + 2);
  const uint8_t* packed = block + 4;
  for (int group = 0; group < 8; ++group) {
    int scale = packed[group] & 63;
    int minimum = packed[group + 4] & 63;
    if (group >= 4) {
      scale = (packed[group + 4] & 15) | ((packed[group - 4] >> 2) & 48);
      minimum = (packed[group + 4] >> 4) | ((packed[group] >> 2) & 48);
    }
    out.scale_factors[group] = static_cast<int8_t>(scale);
    out.minimum_factors[group] = static_cast<int8_t>(minimum);
  }
}

int FourBits(const uint8_t* quants, int i) {
  return (quants[i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4)) & 15;
}

// {f16 d, f16 m; u8 pairs[12]; u8 q[128]}: x = (d * scale) * q - m * minimum, 32 elements a pair.
void ReadQ4_K(const uint8_t* block, const Groups& out) {
  ReadPairs(block, out);
  for (int i = 0; i < 256; ++i) out.codes[i] = static_cast<uint8_t>(FourBits(block + 16, i));
}

// {f16 d, f16 m; u8 pairs[12]; u8 high[32]; u8 q[128]}: as Q4_K with a fifth bit.
void ReadQ5_K(const uint8_t* block, const Groups& out) {
  ReadPairs(block, out);
  for (int i = 0; i < 256; ++i) {
    const int high = (block[16 + i % 32] >> (i / 32)) & 1;
    out.codes[i] = static_cast<uint8_t>(FourBits(block + 48, i) | (high << 4));
  }
}

// {u8 low[128]; u8 high[64]; i8 scales[16]; f16 d}: x = d * scale * (q - 32), q of 6 bits.
void ReadQ6_K(const uint8_t* block, const Groups& out) {
  out.scales[0] = LoadHalf(block + 208);
  std::memcpy(out.scale_factors, block + 192, 16);
  for (int i = 0; i < 256; ++i) {
    const int low = (block[i / 128 * 64 + i % 64] >> (i % 128 / 64 * 4)) & 15;
    const int top = (block[128 + i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2)) & 3;
    out.codes[i] = static_cast<uint8_t>(low | (top << 4));
  }
}

constexpr std::array<float, 16> kNonLinear4 = {-127, -104, -83, -65, -49, -35, -22, -10,
                                               1,    13,   25,  38,  53,  69,  89,  113};

// {f16 d; u8 q[16]}: x = d * table[q].
void ReadIQ4_NL(const uint8_t* block, const Groups& out) {
  out.scales[0] = LoadHalf(block);
  for (int i = 0; i < 32; ++i) out.codes[i] = NibbleOf(block + 2, i);
}

// {f16 d; u16 high; u8 low[4]; u8 q[128]}: x = d * (scale - 32) * table[q], scale of 4 low and 2
// high bits, 32 a scale.
void ReadIQ4_XS(const uint8_t* block, const Groups& out) {
  out.scales[0] = LoadHalf(block);
  uint16_t high;
  std::memcpy(&high, block + 2, sizeof(high));
  for (int group = 0; group < 8; ++group) {
    const int low = (block[4 + group / 2] >> (group % 2 * 4)) & 15;
    const int scale = low | (((high >> (2 * group)) & 3) << 4);
    out.scale_factors[group] = static_cast<int8_t>(scale - 32);
  }
  for (int i = 0; i < 256; ++i) out.codes[i] = NibbleOf(block + 8 + i / 32 * 16, i % 32);
}

struct BlockReader {
  uint32_t type = 0;
  void (*read)(const uint8_t* block, const Groups& out) = nullptr;
  int64_t group = 0;
  int bits = 0;
  float zero = 0;
  bool minima = false;
  bool levels = false;
};

constexpr BlockReader kReaders[] = {
    {6, ReadQ5_0, 32, 8, 16, false, false},  {7, ReadQ5_1, 32, 8, 0, true, false},
    {10, ReadQ2_K, 16, 4, 0, true, false},   {11, ReadQ3_K, 16, 4, 4, false, false},
    {12, ReadQ4_K, 32, 4, 0, true, false},   {13, ReadQ5_K, 32, 8, 0, true, false},
    {14, ReadQ6_K, 16, 8, 32, false, false}, {20, ReadIQ4_NL, 32, 4, 0, false, true},
    {23, ReadIQ4_XS, 32, 4, 0, false, true},
};

}  // namespace

GroupedRows ReadGgufGroups(uint32_t type_number, const uint8_t* blocks, int64_t rows,
                           int64_t cols) {
  const auto* reader =
      std::find_if(std::begin(kReaders), std::end(kReaders),
                   [&](const BlockReader& row) { return row.type == type_number; });
  POLYAD_CHECK(reader != std::end(kReaders), "the type has a reader");
  const GgufTensorType* type = FindGgufTensorType(type_number);
  const int64_t groups = type->block_elements / reader->group;
  GroupedRows made = MakeGroupedRows(rows, cols, reader->group);
  made.bits = reader->bits;
  made.zero = reader->zero;
  if (groups > 1) {  // a block is one super-group
    made.groups_per_super = groups;
    made.scale_factors.resize(made.scales.size());
    if (reader->minima) made.minimum_factors.resize(made.scales.size());
    made.scales.resize(made.scales.size() / static_cast<size_t>(groups));
  }
  if (reader->minima) made.minima.resize(made.scales.size());
  if (reader->levels) {
    made.kind = CodeKind::kLevels;
    made.levels = kNonLinear4;
  }
  for (int64_t block = 0; block < rows * cols / type->block_elements; ++block) {
    reader->read(
        blocks + block * type->block_bytes,
        {made.codes.data() + block * type->block_elements, made.scales.data() + block,
         made.minima.data() + (reader->minima ? block : 0),
         made.scale_factors.data() + (groups > 1 ? block * groups : 0),
         made.minimum_factors.data() + (groups > 1 && reader->minima ? block * groups : 0)});
  }
  return made;
}

}  // namespace polyad
