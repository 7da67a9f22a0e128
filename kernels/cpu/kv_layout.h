#pragma once

// Where a number of K or V lies within a page. A page is one block of one kv head of one layer: K
// [dim / 2 pairs][16 tokens], then V [8 token pairs][dim], where a pair holds what one load of 32
// values gives (LoadPair in lanes.h): bf16 [16][2], fp32 [2][16]. Scores are thus summed for 16
// tokens at once and values for 16 dimensions, each from whole cache lines. head_dim is padded with
// zeros to a multiple of 16. Plain code: also for sources compiled per level.

#include <cstdint>

namespace polyad::cpu {

inline constexpr int64_t kBlock = 16;  // kBlockTokens of the contract
inline constexpr int64_t kPairValues = 32;

struct KvLayout {
  bool bf16 = false;
  int64_t padded_dim = 0;  // a multiple of 16

  int64_t KIndex(int64_t token, int64_t d) const {
    return d / 2 * kPairValues + InPair(token, d % 2);
  }
  int64_t VIndex(int64_t token, int64_t d) const {
    return padded_dim * kBlock + (token / 2 * (padded_dim / 16) + d / 16) * kPairValues +
           InPair(d % 16, token % 2);
  }
  int64_t page_values() const { return 2 * padded_dim * kBlock; }
  int64_t value_bytes() const { return bf16 ? 2 : 4; }

 private:
  int64_t InPair(int64_t lane, int64_t parity) const {
    return bf16 ? lane * 2 + parity : parity * 16 + lane;
  }
};

}  // namespace polyad::cpu
