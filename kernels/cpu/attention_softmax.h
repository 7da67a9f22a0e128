#pragma once

// The softmax side of attention, shared by the kernels that multiply in lanes and in tiles: turns
// scores into weights piece by piece, merges spans, divides. Only for sources compiled per level.

#include <type_traits>

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

inline constexpr int64_t kMemoryBoundRows = 8;  // a tile of more computes while its pages come

// Inlined by force: GCC takes a function that does nothing but this for one that does nothing.
[[gnu::always_inline]] inline void Fetch(const char* bytes, int64_t count) {
  for (int64_t i = 0; i < count; i += kLineBytes) __builtin_prefetch(bytes + i);
}

// Once the piece's keys are read: sends for its values and for the keys of the next piece, before
// `end`, which then come while weights are computed. Neither is a run of addresses that the
// processor would foresee.
template <typename Stored>
[[gnu::always_inline]] inline void FetchNext(const AttentionTile& tile, const Piece<Stored>& piece,
                                             int64_t end) {
  if (tile.num_rows > kMemoryBoundRows) return;
  const KvLayout& layout = tile.pages.layout;
  const int64_t key_bytes = layout.key_bytes();
  for (int64_t b = piece.block_begin; b < piece.block_end; ++b) {
    Fetch(reinterpret_cast<const char*>(piece.pages[b]) + key_bytes,
          layout.page_bytes() - key_bytes);
  }
  const int64_t next = piece.begin / kBlock + kPieceBlocks;
  for (int64_t b = next; b < next + kPieceBlocks && b * kBlock < end; ++b) {
    Fetch(tile.pages.page0 + tile.pages.blocks[b] * tile.pages.block_stride_bytes, key_bytes);
  }
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

// 2^x for x <= 0, as good as the numbers that the pages hold deserve.
template <typename Stored>
Lanes WeightOf(Lanes x) {
  if constexpr (std::is_same_v<Stored, float>) {
    return Exp2(x);
  } else {
    return CoarseExp2(x);
  }
}

// Lane r: the largest score of row r, 0 where there is no row.
template <typename Stored>
Lanes MaxOfRows(const AttentionTile& tile, const Piece<Stored>& piece) {
  Lanes max[kLanes] = {};
  for (int64_t r = 0; r < tile.num_rows; ++r) {
    const float* scores = tile.scores + r * kPieceTokens;
    max[r] = Load(scores + piece.block_begin * kBlock);
    for (int64_t b = piece.block_begin + 1; b < piece.block_end; ++b) {
      max[r] = Max(Load(scores + b * kBlock), max[r]);
    }
  }
  return MaxOfEach(max);
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
  const Lanes old_max = LoadFirst(out.max, tile.num_rows);
  const Lanes new_max = Max(MaxOfRows(tile, piece), old_max);
  StoreFirst(out.max, new_max, tile.num_rows);
  // A row without any key so far keeps weights of 0: -infinity less a shift of 0.
  const Lanes finite = SelectLess(Set(kNoKey), new_max, new_max, Zero());
  float shift[kLanes];
  Store(shift, finite);
  Store(rescale, Exp2(old_max - finite));
  const int64_t gated_end = GatedEnd(tile, piece);
  for (int64_t r = 0; r < tile.num_rows; ++r) {
    const float* scores = tile.scores + r * kPieceTokens;
    const auto weigh = [&](int64_t b) {
      return WeightOf<Stored>(Load(scores + b * kBlock) - Set(shift[r]));
    };
    Weight* own = weights + r * kPieceTokens;
    Lanes sum = Load(out.sum + r * kLanes) * Set(rescale[r]);
    int64_t b = piece.block_begin;
    for (; b < gated_end; ++b) {
      const Lanes weight = weigh(b);
      Store(own + b * kBlock, weight * GatesOf(tile, piece, r, b));
      sum = sum + weight;
    }
    for (; b + 2 <= piece.block_end; b += 2) {
      const Lanes first = weigh(b);
      const Lanes second = weigh(b + 1);
      Store(own + b * kBlock, first, second);
      sum = sum + first + second;
    }
    if (b < piece.block_end) {
      const Lanes weight = weigh(b);
      Store(own + b * kBlock, weight);
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
