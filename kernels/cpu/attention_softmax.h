#pragma once

// The softmax side of attention, shared by the kernels that multiply in lanes and in tiles: turns scores into weights
// piece by piece, merges spans, divides. Only for sources compiled per level.

#include "kernels/cpu/attention_kernel.h"
#include "kernels/cpu/kv_layout.h"
#include "kernels/cpu/lanes.h"

namespace polyad::cpu::POLYAD_ISA {

inline constexpr float kNoKey = -__builtin_inff();
inline constexpr int64_t kPieceBlocks = kPieceTokens / kBlock;

inline int64_t Within(int64_t value, int64_t high) {
  return value < 0 ? 0 : value > high ? high : value;
}

// The keys of one piece that some row of the tile may see: blocks [block_begin, block_end) of the piece, tokens up to
// token_end of the piece.
template <typename Stored>
struct Piece {
  const Stored* pages[kPieceBlocks];  // of each visible block
  int64_t begin;                      // position of the piece's first token
  int64_t block_begin;
  int64_t block_end;
  int64_t token_end;
};

// The piece of the tile that begins at `piece_begin`, within keys [begin, end).
template <typename Stored>
Piece<Stored> PieceAt(const KvPages& pages, int64_t piece_begin, int64_t begin, int64_t end) {
  Piece<Stored> piece;
  piece.begin = piece_begin;
  piece.block_begin = Within(begin - piece_begin, kPieceTokens) / kBlock;
  piece.token_end = Within(end - piece_begin, kPieceTokens);
  piece.block_end = (piece.token_end + kBlock - 1) / kBlock;
  for (int64_t b = piece.block_begin; b < piece.block_end; ++b) {
    const int64_t block = pages.blocks[piece_begin / kBlock + b];
    piece.pages[b] = reinterpret_cast<const Stored*>(pages.page0 + block * pages.block_stride_bytes);
  }
  return piece;
}

// Empties the partial; the keys that some row may see within [*begin, *end), which are narrowed.
inline void BeginSpan(const AttentionTile& tile, const AttentionPartial& out, int64_t* begin,
                      int64_t* end) {
  int64_t first = tile.first_key[0];
  int64_t last = tile.position[0];
  for (int64_t r = 0; r < tile.num_rows; ++r) {
    out.max[r] = kNoKey;
    Store(out.sum + r * kLanes, Zero());
    first = tile.first_key[r] < first ? tile.first_key[r] : first;
    last = tile.position[r] > last ? tile.position[r] : last;
  }
  for (int64_t i = 0; i < tile.num_rows * tile.pages.padded_dim; i += kLanes) {
    Store(out.values + i, Zero());
  }
  *begin = first > *begin ? first : *begin;
  *end = last + 1 < *end ? last + 1 : *end;
}

// Turns row r's scores of a piece into weights 2^(s - max), 0 for keys it must not see, and brings max and sum up to
// date. Returns what earlier values must be multiplied by.
template <typename Stored, typename Weight>
float WeighRow(const AttentionTile& tile, const Piece<Stored>& piece, int64_t r, Weight* weights,
               const AttentionPartial& out) {
  const float* scores = tile.scores + r * kPieceTokens;
  const int64_t key_begin = tile.first_key[r] - piece.begin;
  const int64_t key_end = tile.position[r] + 1 - piece.begin;
  Lanes seen[kPieceBlocks];
  Lanes block_max = Set(kNoKey);
  for (int64_t b = piece.block_begin; b < piece.block_end; ++b) {
    const int64_t begin = Within(key_begin - b * kBlock, kBlock);
    const int64_t end = Within(key_end - b * kBlock, kBlock);
    seen[b] = KeepBetween(Load(scores + b * kBlock), begin, end, Set(kNoKey));
    block_max = Max(seen[b], block_max);
  }
  const float piece_max = MaxOf(block_max);
  const float max = piece_max > out.max[r] ? piece_max : out.max[r];
  const bool none = max == kNoKey;  // no key seen so far: every weight is 0, and so must be -inf - shift
  const float shift = none ? 0.0f : max;
  const float rescale = none ? 1.0f : First(Exp2(Set(out.max[r] - shift)));
  Lanes sum = Load(out.sum + r * kLanes) * Set(rescale);
  for (int64_t b = piece.block_begin; b < piece.block_end; ++b) {
    const Lanes weight = Exp2(seen[b] - Set(shift));
    Store(weights + b * kBlock, weight);
    sum = sum + weight;
  }
  Store(out.sum + r * kLanes, sum);
  out.max[r] = max;
  return rescale;
}

inline void Merge(const AttentionPartial& next, int64_t num_rows, int64_t padded_dim,
           const AttentionPartial& total) {
  for (int64_t r = 0; r < num_rows; ++r) {
    if (next.max[r] == kNoKey) continue;  // adds nothing
    const float max = next.max[r] > total.max[r] ? next.max[r] : total.max[r];
    const Lanes old_scale = Exp2(Set(total.max[r] - max));
    const Lanes new_scale = Exp2(Set(next.max[r] - max));
    total.max[r] = max;
    Store(total.sum + r * kLanes, Fma(Load(next.sum + r * kLanes), new_scale,
                                      Load(total.sum + r * kLanes) * old_scale));
    for (int64_t i = r * padded_dim; i < (r + 1) * padded_dim; i += kLanes) {
      Store(total.values + i,
            Fma(Load(next.values + i), new_scale, Load(total.values + i) * old_scale));
    }
  }
}

template <typename Out>
void FinishAs(const float* values, Lanes inverse, int64_t head_dim, Out* out) {
  for (int64_t d = 0; d < head_dim; d += kLanes) {
    // + 0 turns -0 into 0: a row that met more weights of 0 on its way may have lost the sign.
    const Lanes value = Load(values + d) * inverse + Zero();
    StoreFirst(out + d, value, head_dim - d < kLanes ? head_dim - d : kLanes);
  }
}

inline void Finish(const AttentionPartial& total, int64_t row, int64_t padded_dim, int64_t head_dim,
            bool bf16_out, void* out) {
  const Lanes inverse = Set(1.0f / Sum(Load(total.sum + row * kLanes)));
  const float* values = total.values + row * padded_dim;
  if (bf16_out) return FinishAs(values, inverse, head_dim, static_cast<uint16_t*>(out));
  FinishAs(values, inverse, head_dim, static_cast<float*>(out));
}

}  // namespace polyad::cpu::POLYAD_ISA
