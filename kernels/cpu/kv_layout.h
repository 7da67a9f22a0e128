#pragma once

// Where a number of K or V lies within a page. A page is one block of one kv head of one layer.
// Plain formats: K [dim / 2 pairs][16 tokens], then V [8 token pairs][dim], where a pair holds what
// one load of 32 values gives (LoadPair in lanes.h): bf16 [16][2], fp32 [2][16]. Scores are thus
// summed for 16 tokens at once and values for 16 dimensions, each from whole cache lines.
// Integer formats (kv_codes.h): K in lines of 64 bytes, four dimensions of each of 16 tokens, a
// line of int4 holding the next four in the upper halves of its bytes; of int4, then a line of
// fifth bits for each 32 dimensions, where bit q of a token's byte j is that of dimension 4 q + j;
// then a line per group: scale, then low, of the 16 tokens as bf16. V likewise, four tokens of 16
// dimensions to a line (of int4: of 32, the upper 16 in the upper halves), without fifth bits. No
// byte belongs to two tokens. head_dim is padded to a multiple of 16, with zeros where numbers are
// plain; of 32 for int4. Plain code: also for sources compiled per level.

#include <cstdint>

#include "kernels/api/kv_codes.h"

namespace polyad::cpu {

inline constexpr int64_t kBlock = 16;  // kBlockTokens of the contract
inline constexpr int64_t kPairValues = 32;
inline constexpr int64_t kLineBytes = 64;

struct KvLayout {
  KvFormat format = KvFormat::kF32;
  int64_t padded_dim = 0;

  static KvLayout Of(KvFormat format, int64_t head_dim) {
    const int64_t multiple = format == KvFormat::kInt4 ? 32 : 16;
    return {format, (head_dim + multiple - 1) / multiple * multiple};
  }

  bool coded() const { return IsCoded(format); }
  bool halves() const { return format == KvFormat::kInt4; }  // two codes to a byte
  bool bf16() const { return format == KvFormat::kBF16; }
  int64_t page_bytes() const {
    return coded() ? VScales(NumGroups(KvPart::kValue)) : 2 * padded_dim * kBlock * value_bytes();
  }

  // Of a page's bytes the first ones are keys, the others values.
  int64_t key_bytes() const { return coded() ? VCodes() : padded_dim * kBlock * value_bytes(); }

  // Plain formats: places of numbers.
  int64_t KIndex(int64_t token, int64_t d) const {
    return d / 2 * kPairValues + InPair(token, d % 2);
  }
  int64_t VIndex(int64_t token, int64_t d) const {
    return padded_dim * kBlock + (token / 2 * (padded_dim / 16) + d / 16) * kPairValues +
           InPair(d % 16, token % 2);
  }
  int64_t page_values() const { return 2 * padded_dim * kBlock; }
  int64_t value_bytes() const { return bf16() ? 2 : 4; }

  // Integer formats: places of bytes.
  int64_t GroupSize(KvPart part) const { return GroupSizeOf(format, part); }
  int64_t NumGroups(KvPart part) const {
    return (padded_dim + GroupSize(part) - 1) / GroupSize(part);
  }
  int64_t code_bytes() const { return padded_dim * kBlock / (halves() ? 2 : 1); }  // of K, and of V
  int64_t KFifths(int64_t d) const { return code_bytes() + d / 32 * kLineBytes; }
  int64_t KScales(int64_t group) const {
    return (halves() ? KFifths(padded_dim) : code_bytes()) + group * kLineBytes;
  }
  int64_t VCodes() const { return KScales(NumGroups(KvPart::kKey)); }
  int64_t VScales(int64_t group) const { return VCodes() + code_bytes() + group * kLineBytes; }
  int64_t quad_bytes() const { return code_bytes() / 4; }  // V of four tokens
  int64_t KCode(int64_t token, int64_t d) const {
    const int64_t line = halves() ? d / 8 : d / 4;
    return line * kLineBytes + token * 4 + d % 4;
  }
  int64_t VCode(int64_t token, int64_t d) const {
    const int64_t line = halves() ? d / 32 : d / 16;
    return VCodes() + token / 4 * quad_bytes() + line * kLineBytes + d % 16 * 4 + token % 4;
  }
  // Whether the code is in the upper half of its byte.
  bool KUpper(int64_t d) const { return halves() && d % 8 >= 4; }
  bool VUpper(int64_t d) const { return halves() && d % 32 >= 16; }

 private:
  int64_t InPair(int64_t lane, int64_t parity) const {
    return bf16() ? lane * 2 + parity : parity * 16 + lane;
  }
};

}  // namespace polyad::cpu
