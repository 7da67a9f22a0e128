#pragma once

// The softmax side of attention, shared by the kernels that multiply in lanes and in tiles: turns
// scores into weights piece by piece, merges spans, divides. Only for sources compiled per level.

#include "kernels/cpu/attention_kernel.h"
#include "kernels/cpu/kv_layout.h"
#include "kernels/cpu/lanes.h"

namespace polyad::cpu::POLYAD_ISA {

inline constexpr float kNoKey = -__builtin_inff();
inline constexpr int64_t kPieceBlocks = kPieceTokens / kBlock;

template <int N>
struct Count {};

// Calls f(Count<n>, first row) for groups of `N` rows and one smaller rest.
template <int N, typename Function>
inline void ForRowGroups(int64_t row, int64_t row_end, Function f) {
  for (; row + N <= row_end; row += N) f(Count<N>(), row);
  if constexpr (N > 1) {
    if (row < row_end) ForRowGroups<N - 1>(row, row_end, f);
  }
}

inline int64_t Within(int64_t value, int64_t high) {
  return value < 0 ? 0 : value > high ? high : value;
}

// The keys of one piece that some row of the tile may see: blocks [block_begin, block_end) of the
// piece, tokens up to token_end of the piece.
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
    piece.pages[b] =
        reinterpret_cast<const Stored*>(pages.page0 + block * pages.block_stride_bytes);
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
  for (int64_t i = 0; i < tile.num_rows * tile.pages.layout.padded_dim; i += kLanes) {
    Store(out.values + i, Zero());
  }
  *begin = first > *begin ? first : *begin;
  *end = last + 1 < *end ? last + 1 : *end;
}

// True where every row of the tile sees every key of the piece's visible blocks.
template <typename Stored>
bool SeesAll(const AttentionTile& tile, const Piece<Stored>& piece) {
  const int64_t begin = piece.begin + piece.block_begin * kBlock;
  const int64_t end = piece.begin + piece.block_end * kBlock;
  bool all = true;
  for (int64_t r = 0; r < tile.num_rows; ++r) {
    all = all && tile.first_key[r] <= begin && tile.position[r] + 1 >= end;
  }
  return all;
}

// Puts -infinity in place of the scores of keys that row r must not see.
template <typename Stored>
void MaskRow(const AttentionTile& tile, const Piece<Stored>& piece, int64_t r) {
  float* scores = tile.scores + r * kPieceTokens;
  const int64_t key_begin = tile.first_key[r] - piece.begin;
  const int64_t key_end = tile.position[r] + 1 - piece.begin;
  for (int64_t b = piece.block_begin; b < piece.block_end; ++b) {
    const int64_t begin = Within(key_begin - b * kBlock, kBlock);
    const int64_t end = Within(key_end - b * kBlock, kBlock);
    Store(scores + b * kBlock, KeepBetween(Load(scores + b * kBlock), begin, end, Set(kNoKey)));
  }
}

// The end of the piece's visible blocks whose keys have gates.
template <typename Stored>
int64_t GatedEnd(const AttentionTile& tile, const Piece<Stored>& piece) {
  const int64_t gated = Within(tile.num_gates - piece.begin, kPieceTokens) / kBlock;
  return gated < piece.block_end ? gated : piece.block_end;
}

// Row r's gates of the keys of block b of the piece.
template <typename Stored>
Lanes GatesOf(const AttentionTile& tile, const Piece<Stored>& piece, int64_t r, int64_t b) {
  return Load(tile.gates[r] + piece.begin + b * kBlock);
}

// Multiplies scores by the keys' gates.
template <typename Stored>
void GateScores(const AttentionTile& tile, const Piece<Stored>& piece) {
  const int64_t gated_end = GatedEnd(tile, piece);
  for (int64_t r = 0; r < tile.num_rows; ++r) {
    for (int64_t b = piece.block_begin; b < gated_end; ++b) {
      float* scores = tile.scores + r * kPieceTokens + b * kBlock;
      Store(scores, Load(scores) * GatesOf(tile, piece, r, b));
    }
  }
}

// Turns a piece's scores into weights 2^(score - max), 0 for keys a row must not see, and brings
// max and sum up to date. A weight counts in the sum before its value's gate multiplies it.
// `rescale` [kTileRows]: what a row's earlier values must be multiplied by. `weights` may be the
// scores.
template <typename Stored, typename Weight>
void WeighPiece(const AttentionTile& tile, const Piece<Stored>& piece, Weight* weights,
                const AttentionPartial& out, float* rescale) {
  static_assert(kTileRows == kLanes);
  GateScores(tile, piece);
  if (!SeesAll(tile, piece)) {
    for (int64_t r = 0; r < tile.num_rows; ++r) MaskRow(tile, piece, r);
  }
  float shift[kLanes] = {};
  for (int64_t r = 0; r < tile.num_rows; ++r) {
    Lanes max = Load(tile.scores + r * kPieceTokens + piece.block_begin * kBlock);
    for (int64_t b = piece.block_begin + 1; b < piece.block_end; ++b) {
      max = Max(Load(tile.scores + r * kPieceTokens + b * kBlock), max);
    }
    shift[r] = MaxOf(max);
  }
  const Lanes old_max = LoadFirst(out.max, tile.num_rows);
  const Lanes new_max = Max(LoadFirst(shift, tile.num_rows), old_max);
  StoreFirst(out.max, new_max, tile.num_rows);
  // A row without any key so far keeps weights of 0: -infinity less a shift of 0.
  const Lanes finite = SelectLess(Set(kNoKey), new_max, new_max, Zero());
  Store(shift, finite);
  Store(rescale, Exp2(old_max - finite));
  const int64_t gated_end = GatedEnd(tile, piece);
  for (int64_t r = 0; r < tile.num_rows; ++r) {
    Lanes sum = Load(out.sum + r * kLanes) * Set(rescale[r]);
    int64_t b = piece.block_begin;
    for (; b < gated_end; ++b) {
      const int64_t at = r * kPieceTokens + b * kBlock;
      const Lanes weight = Exp2(Load(tile.scores + at) - Set(shift[r]));
      Store(weights + at, weight * GatesOf(tile, piece, r, b));
      sum = sum + weight;
    }
    for (; b < piece.block_end; ++b) {
      const int64_t at = r * kPieceTokens + b * kBlock;
      const Lanes weight = Exp2(Load(tile.scores + at) - Set(shift[r]));
      Store(weights + at, weight);
      sum = sum + weight;
    }
    Store(out.sum + r * kLanes, sum);
  }
}

inline void Merge(const AttentionPartial& next, int64_t num_rows, int64_t padded_dim,
                  const AttentionPartial& total) {
  for (int64_t r = 0; r < num_rows; ++r) {
    if (next.max[r] == kNoKey) continue;  // adds nothing
    const float max = next.max[r] > total.max[r] ? next.max[r] : total.max[r];
    const Lanes old_scale = Exp2(Set(total.max[r] - max));
    const Lanes new_scale = Exp2(Set(next.max[r] - max));
    total.max[r] = max;
    Store(total.sum + r * kLanes,
          Fma(Load(next.sum + r * kLanes), new_scale, Load(total.sum + r * kLanes) * old_scale));
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

inline void Finish(const AttentionPartial& total, int64_t row, const KvLayout& layout,
                   int64_t head_dim, bool bf16_out, void* out) {
  const Lanes inverse = Set(1.0f / Sum(Load(total.sum + row * kLanes)));
  const float* values = total.values + row * layout.padded_dim;
  if (bf16_out) return FinishAs(values, inverse, head_dim, static_cast<uint16_t*>(out));
  FinishAs(values, inverse, head_dim, static_cast<float*>(out));
}

}  // namespace polyad::cpu::POLYAD_ISA
