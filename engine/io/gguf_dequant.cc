#include "engine/io/gguf_dequant.h"

#include <cstring>

#include "engine/base/check.h"
#include "engine/io/float_bits.h"
#include "engine/io/gguf_types.h"

namespace polyad {

namespace {

float LoadHalf(const uint8_t* bytes) {
  uint16_t half;
  std::memcpy(&half, bytes, sizeof(half));
  return HalfToFloat(half);
}

// {f16 d; u32 high bits; u8 low[16]}: x = d * (q - 16), q = low nibble + 16 * high bit.
void DecodeQ5_0(const uint8_t* block, float* out) {
  const float scale = LoadHalf(block);
  uint32_t high;
  std::memcpy(&high, block + 2, sizeof(high));
  const uint8_t* low = block + 6;
  for (int i = 0; i < 32; ++i) {
    const int nibble = i < 16 ? low[i] & 15 : low[i - 16] >> 4;
    const int quant = nibble | static_cast<int>(((high >> i) & 1u) << 4);
    out[i] = scale * static_cast<float>(quant - 16);
  }
}

// {f16 d, f16 m; u32 high bits; u8 low[16]}: x = d * q + m.
void DecodeQ5_1(const uint8_t* block, float* out) {
  const float scale = LoadHalf(block);
  const float minimum = LoadHalf(block + 2);
  uint32_t high;
  std::memcpy(&high, block + 4, sizeof(high));
  const uint8_t* low = block + 8;
  for (int i = 0; i < 32; ++i) {
    const int nibble = i < 16 ? low[i] & 15 : low[i - 16] >> 4;
    const int quant = nibble | static_cast<int>(((high >> i) & 1u) << 4);
    out[i] = scale * static_cast<float>(quant) + minimum;
  }
}

// {u8 scales[16]; u8 q[64]; f16 d, f16 m}: x = (d * (scale & 15)) * q - m * (scale >> 4), q of 2
// bits, 16 per scale.
void DecodeQ2_K(const uint8_t* block, float* out) {
  const uint8_t* quants = block + 16;
  const float d = LoadHalf(block + 80);
  const float m = LoadHalf(block + 82);
  for (int i = 0; i < 256; ++i) {
    const uint8_t packed = block[i / 16];
    const float scale = d * static_cast<float>(packed & 15);
    const float minimum = m * static_cast<float>(packed >> 4);
    const int quant = (quants[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2)) & 3;
    out[i] = scale * static_cast<float>(quant) - minimum;
  }
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
void DecodeQ3_K(const uint8_t* block, float* out) {
  const uint8_t* quants = block + 32;
  const uint8_t* scales = block + 96;
  const float d = LoadHalf(block + 108);
  for (int i = 0; i < 256; ++i) {
    const float scale = d * static_cast<float>(ScaleOfQ3_K(scales, i / 16));
    const int low = (quants[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2)) & 3;
    const int high = (block[i % 32] >> (i / 32)) & 1;
    out[i] = scale * static_cast<float>(low - (high != 0 ? 0 : 4));
  }
}

struct ScaleAndMinimum {
  int scale;
  int minimum;
};

// The 8 pairs of six-bit scales and minimums of Q4_K and Q5_K in 12 bytes.
ScaleAndMinimum PairOfQ4_K(const uint8_t* packed, int index) {
  if (index < 4) return {packed[index] & 63, packed[index + 4] & 63};
  const int low = packed[index + 4];
  return {(low & 15) | ((packed[index - 4] >> 2) & 48), (low >> 4) | ((packed[index] >> 2) & 48)};
}

// {f16 d, f16 m; u8 pairs[12]; u8 q[128]}: x = (d * scale) * q - m * minimum, 32 elements a pair.
void DecodeQ4_K(const uint8_t* block, float* out) {
  const float d = LoadHalf(block);
  const float m = LoadHalf(block + 2);
  const uint8_t* quants = block + 16;
  for (int i = 0; i < 256; ++i) {
    const ScaleAndMinimum pair = PairOfQ4_K(block + 4, i / 32);
    const int quant = (quants[i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4)) & 15;
    out[i] = (d * static_cast<float>(pair.scale)) * static_cast<float>(quant) -
             m * static_cast<float>(pair.minimum);
  }
}

// {f16 d, f16 m; u8 pairs[12]; u8 high[32]; u8 q[128]}: as Q4_K with a fifth bit.
void DecodeQ5_K(const uint8_t* block, float* out) {
  const float d = LoadHalf(block);
  const float m = LoadHalf(block + 2);
  const uint8_t* high = block + 16;
  const uint8_t* quants = block + 48;
  for (int i = 0; i < 256; ++i) {
    const ScaleAndMinimum pair = PairOfQ4_K(block + 4, i / 32);
    const int low = (quants[i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4)) & 15;
    const int quant = low | (((high[i % 32] >> (i / 32)) & 1) << 4);
    out[i] = (d * static_cast<float>(pair.scale)) * static_cast<float>(quant) -
             m * static_cast<float>(pair.minimum);
  }
}

// {u8 low[128]; u8 high[64]; i8 scales[16]; f16 d}: x = d * scale * (q - 32), q of 6 bits.
void DecodeQ6_K(const uint8_t* block, float* out) {
  const uint8_t* high = block + 128;
  const uint8_t* scales = block + 192;
  const float d = LoadHalf(block + 208);
  for (int i = 0; i < 256; ++i) {
    const float scale = d * static_cast<float>(static_cast<int8_t>(scales[i / 16]));
    const int low = (block[i / 128 * 64 + i % 64] >> (i % 128 / 64 * 4)) & 15;
    const int top = (high[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2)) & 3;
    out[i] = scale * static_cast<float>((low | (top << 4)) - 32);
  }
}

constexpr int8_t kNonLinear4[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                    1,    13,   25,  38,  53,  69,  89,  113};

// {f16 d; u8 q[16]}: x = d * table[q].
void DecodeIQ4_NL(const uint8_t* block, float* out) {
  const float scale = LoadHalf(block);
  for (int i = 0; i < 32; ++i) {
    const int nibble = i < 16 ? block[2 + i] & 15 : block[2 + i - 16] >> 4;
    out[i] = scale * static_cast<float>(kNonLinear4[nibble]);
  }
}

// {f16 d; u16 high; u8 low[4]; u8 q[128]}: x = d * (scale - 32) * table[q], scale of 4 low and 2
// high bits, 32 a scale.
void DecodeIQ4_XS(const uint8_t* block, float* out) {
  const float d = LoadHalf(block);
  uint16_t high;
  std::memcpy(&high, block + 2, sizeof(high));
  const uint8_t* quants = block + 8;
  for (int i = 0; i < 256; ++i) {
    const int group = i / 32;
    const int low = (block[4 + group / 2] >> (group % 2 * 4)) & 15;
    const int scale = low | (((high >> (2 * group)) & 3) << 4);
    const int nibble = (quants[group * 16 + i % 16] >> (i % 32 / 16 * 4)) & 15;
    out[i] = (d * static_cast<float>(scale - 32)) * static_cast<float>(kNonLinear4[nibble]);
  }
}

using BlockDecoder = void (*)(const uint8_t* block, float* out);

BlockDecoder DecoderOf(uint32_t type_number) {
  switch (type_number) {
    case 6:
      return DecodeQ5_0;
    case 7:
      return DecodeQ5_1;
    case 10:
      return DecodeQ2_K;
    case 11:
      return DecodeQ3_K;
    case 12:
      return DecodeQ4_K;
    case 13:
      return DecodeQ5_K;
    case 14:
      return DecodeQ6_K;
    case 20:
      return DecodeIQ4_NL;
    case 23:
      return DecodeIQ4_XS;
    default:
      return nullptr;
  }
}

}  // namespace

void DecodeGgufBlocks(uint32_t type_number, const uint8_t* blocks, std::span<float> out) {
  const BlockDecoder decode = DecoderOf(type_number);
  POLYAD_CHECK(decode != nullptr, "the type has a decoder");
  const GgufTensorType* type = FindGgufTensorType(type_number);
  const auto block_elements = static_cast<size_t>(type->block_elements);
  for (size_t begin = 0; begin < out.size(); begin += block_elements) {
    decode(blocks, out.data() + begin);
    blocks += type->block_bytes;
  }
}

}  // namespace polyad
