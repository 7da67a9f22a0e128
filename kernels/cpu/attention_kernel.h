#pragma once

// Attention for one tile: up to kTileRows query heads that share a kv head, over one span of keys.
// Keys come in pieces of kPieceTokens and spans of kSpanTokens by absolute position; within a span
// the softmax runs online from piece to piece, spans are merged in order (Milakov and Gimelshein
// 2018, "Online normalizer calculation for softmax", section 3.1). A row's sums meet the same
// numbers in the same order in whatever tile, chunk or step it is computed: keys it must not see
// weigh exactly 0, and pieces without any visible key change nothing.

#include <cstdint>

#include "kernels/cpu/kv_layout.h"

namespace polyad::cpu {

inline constexpr int64_t kTileRows = 16;  // at most; AttentionKernels says how many it likes
inline constexpr int64_t kPieceTokens =
    64;  // a piece of K and V of 64 dimensions is 16 KiB: half of L1
inline constexpr int64_t kSpanTokens = 512;  // long contexts split over threads in spans

// Where one kv head's pages of one layer lie (kv_storage.h).
struct KvPages {
  const char* page0 = nullptr;  // page of block 0
  int64_t block_stride_bytes = 0;
  const int32_t* blocks = nullptr;  // block table of the sequence
  KvLayout layout;
};

struct AttentionTile {
  KvPages pages;
  const char* q = nullptr;  // rows of query_bytes as scale_query wrote them, times scale * log2(e)
  int64_t num_rows = 0;
  int64_t position[kTileRows] = {};  // row r sees keys in [first_key[r], position[r]]
  int64_t first_key[kTileRows] = {};
  int64_t num_gates = 0;  // keys that row r has gates[r] of, a multiple of kBlock
  const float* gates[kTileRows] = {};
  // Working memory.
  float* scores = nullptr;  // [kTileRows][kPieceTokens]
  char* piece = nullptr;    // piece_bytes for what a piece needs besides
};

// Softmax so far of each row of a tile: weights are 2^(score - max), sum is kept in 16 lanes by
// token position.
struct AttentionPartial {
  float* max = nullptr;     // [kTileRows]; -infinity: no visible key yet
  float* sum = nullptr;     // [kTileRows][16]
  float* values = nullptr;  // [kTileRows][padded_dim]
};

struct AttentionKernels {
  int64_t tile_rows = 0;
  // Bytes of a row of AttentionTile::q, and of AttentionTile::piece: multiples of 64.
  int64_t (*query_bytes)(const KvLayout& layout) = nullptr;
  int64_t (*piece_bytes)(const KvLayout& layout) = nullptr;
  // q[0, head_dim) * factor in the form `attend` reads.
  void (*scale_query)(const float* q, int64_t head_dim, float factor, const KvLayout& layout,
                      char* scaled) = nullptr;
  // Fills `out` with the tile over keys [span_begin, span_end).
  void (*attend)(const AttentionTile& tile, int64_t span_begin, int64_t span_end,
                 const AttentionPartial& out) = nullptr;
  // total <- total with `next`, which lies after it.
  void (*merge)(const AttentionPartial& next, int64_t num_rows, int64_t padded_dim,
                const AttentionPartial& total) = nullptr;
  // One row's values / sum, as f32 or bf16; its values are spent.
  void (*finish)(const AttentionPartial& total, int64_t row, const KvLayout& layout,
                 int64_t head_dim, bool bf16_out, void* out) = nullptr;
};

}  // namespace polyad::cpu
