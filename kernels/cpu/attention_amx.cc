// Attention of one tile on AMX: scores = q k and values += weights v as tile products of bf16 with
// fp32 sums, over bf16 pages; softmax in lanes between them. Every product takes 16 inputs at a
// time (8 rows of pairs), so that one tile shape serves any head dimension and one block of keys.
// The tile unit computes each row by itself: a row alone and a row among 16 get the same bits.
// Tiles: 0-3 sums, 4 left operand, 6-7 right operands.

#include "kernels/cpu/attention_softmax.h"
#include "kernels/cpu/isa_functions.h"
#include "kernels/cpu/lanes.h"
#include "kernels/cpu/tile_config.h"

namespace polyad::cpu::POLYAD_ISA {
namespace {

constexpr int64_t kPairRows = 8;                       // 16 inputs
constexpr int64_t kKeyTile = kPairRows * kPairValues;  // values of k for 16 dimensions
constexpr int64_t kScoreStride = kPieceTokens * sizeof(float);
constexpr int64_t kWeightStride = kPieceTokens * sizeof(uint16_t);

void Configure(int64_t num_rows) {
  TileConfig config;
  for (int tile = 0; tile < 8; ++tile) {
    config.rows[tile] = static_cast<uint8_t>(tile < 6 ? num_rows : kPairRows);
    config.row_bytes[tile] = tile == 4 || tile == 5 ? 32 : 64;
  }
  LoadTileConfig(config);
}

// scores[r][token] = q[r] . k[token] for the four blocks of a piece; those that are not visible
// repeat the last one.
void ScorePiece(const AttentionTile& tile, const Piece<uint16_t>& piece) {
  const int64_t dim = tile.pages.layout.padded_dim;
  const uint16_t* pages[kPieceBlocks];
  for (int64_t b = 0; b < kPieceBlocks; ++b) {
    const bool visible = b >= piece.block_begin && b < piece.block_end;
    pages[b] = piece.pages[visible ? b : piece.block_end - 1];
  }
  const auto* q = reinterpret_cast<const uint16_t*>(tile.q);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t d = 0; d < dim; d += kLanes) {
    const int64_t at = d / kLanes * kKeyTile;
    _tile_loadd(4, q + d, dim * 2);
    _tile_loadd(6, pages[0] + at, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, pages[1] + at, 64);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(6, pages[2] + at, 64);
    _tile_dpbf16ps(2, 4, 6);
    _tile_loadd(7, pages[3] + at, 64);
    _tile_dpbf16ps(3, 4, 7);
  }
  _tile_stored(0, tile.scores, kScoreStride);
  _tile_stored(1, tile.scores + kBlock, kScoreStride);
  _tile_stored(2, tile.scores + 2 * kBlock, kScoreStride);
  _tile_stored(3, tile.scores + 3 * kBlock, kScoreStride);
  FinishWrites();
}

// v of a block of which only the first `tokens` are written, zeros behind them: what lies there may
// be anything, and a weight of 0 does not silence a NaN.
void CopyLastBlock(const uint16_t* v, int64_t tokens, int64_t dim, uint16_t* out) {
  for (int64_t token = 0; token < kBlock; token += 2) {
    for (int64_t i = token * dim; i < (token + 2) * dim; i += kPairValues) {
      Lanes even = Zero();
      Lanes odd = Zero();
      if (token < tokens) LoadPair(v + i, even, odd);
      StoreInPair(out + i, even, 0);
      StoreInPair(out + i, token + 1 < tokens ? odd : Zero(), 1);
    }
  }
}

// What a piece needs in AttentionTile::piece: weights [kTileRows][kPieceTokens], then v of a block
// that is not full [kBlock][padded_dim], all bf16.
uint16_t* WeightsIn(const AttentionTile& tile) { return reinterpret_cast<uint16_t*>(tile.piece); }

int64_t PieceBytes(const KvLayout& layout) {
  return (kTileRows * kPieceTokens + kBlock * layout.padded_dim) *
         static_cast<int64_t>(sizeof(uint16_t));
}

// values[r][dims] += weights[r] v over the piece's blocks, in order; one sum per 16 tokens and
// lane, then the chain.
void AddPiece(const AttentionTile& tile, const uint16_t* const* values,
              const Piece<uint16_t>& piece, const AttentionPartial& out) {
  const int64_t dim = tile.pages.layout.padded_dim;
  const int64_t stride = dim * 4;  // bytes of a row of fp32 values, and of a pair of tokens
  const uint16_t* weights = WeightsIn(tile);
  int64_t d = 0;
  for (; d + 4 * kLanes <= dim; d += 4 * kLanes) {
    float* sums = out.values + d;
    _tile_loadd(0, sums, stride);
    _tile_loadd(1, sums + kLanes, stride);
    _tile_loadd(2, sums + 2 * kLanes, stride);
    _tile_loadd(3, sums + 3 * kLanes, stride);
    for (int64_t b = piece.block_begin; b < piece.block_end; ++b) {
      const uint16_t* v = values[b] + d * 2;
      _tile_loadd(4, weights + b * kBlock, kWeightStride);
      _tile_loadd(6, v, stride);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(7, v + kPairValues, stride);
      _tile_dpbf16ps(1, 4, 7);
      _tile_loadd(6, v + 2 * kPairValues, stride);
      _tile_dpbf16ps(2, 4, 6);
      _tile_loadd(7, v + 3 * kPairValues, stride);
      _tile_dpbf16ps(3, 4, 7);
    }
    _tile_stored(0, sums, stride);
    _tile_stored(1, sums + kLanes, stride);
    _tile_stored(2, sums + 2 * kLanes, stride);
    _tile_stored(3, sums + 3 * kLanes, stride);
  }
  for (; d < dim; d += kLanes) {
    _tile_loadd(0, out.values + d, stride);
    for (int64_t b = piece.block_begin; b < piece.block_end; ++b) {
      _tile_loadd(4, weights + b * kBlock, kWeightStride);
      _tile_loadd(6, values[b] + d * 2, stride);
      _tile_dpbf16ps(0, 4, 6);
    }
    _tile_stored(0, out.values + d, stride);
  }
  FinishWrites();
}

// `end`: of the keys.
void AttendPiece(const AttentionTile& tile, const Piece<uint16_t>& piece, int64_t end,
                 const AttentionPartial& out) {
  const int64_t dim = tile.pages.layout.padded_dim;
  ScorePiece(tile, piece);
  FetchNext(tile, piece, end);
  float rescale[kTileRows];
  WeighPiece(tile, piece, WeightsIn(tile), out, rescale);
  for (int64_t r = 0; r < tile.num_rows; ++r) {
    if (rescale[r] == 1.0f) continue;
    for (int64_t i = r * dim; i < (r + 1) * dim; i += kLanes) {
      Store(out.values + i, Load(out.values + i) * Set(rescale[r]));
    }
  }
  const uint16_t* values[kPieceBlocks];
  for (int64_t b = piece.block_begin; b < piece.block_end; ++b)
    values[b] = piece.pages[b] + dim * kBlock;
  if (const int64_t tokens = piece.token_end % kBlock; tokens != 0) {
    uint16_t* last_block = WeightsIn(tile) + kTileRows * kPieceTokens;
    CopyLastBlock(values[piece.block_end - 1], tokens, dim, last_block);
    values[piece.block_end - 1] = last_block;
  }
  FinishWrites();
  AddPiece(tile, values, piece, out);
}

void Attend(const AttentionTile& tile, int64_t begin, int64_t end, const AttentionPartial& out) {
  BeginSpan(tile, out, &begin, &end);
  Configure(tile.num_rows);
  for (int64_t at = begin / kPieceTokens * kPieceTokens; at < end; at += kPieceTokens) {
    AttendPiece(tile, PieceAt<uint16_t>(tile.pages, at, begin, end), end, out);
  }
  _tile_release();
}

int64_t QueryBytes(const KvLayout& layout) {
  return layout.padded_dim * static_cast<int64_t>(sizeof(uint16_t));
}

void ScaleQuery(const float* q, int64_t head_dim, float factor, const KvLayout&, char* scaled) {
  auto* out = reinterpret_cast<uint16_t*>(scaled);
  for (int64_t d = 0; d < head_dim; d += kLanes) {
    const int64_t valid = head_dim - d < kLanes ? head_dim - d : kLanes;
    Store(out + d, LoadFirst(q + d, valid) * Set(factor));
  }
}

}  // namespace

AttentionKernels MakeAttentionKernels() {
  return {kTileRows, QueryBytes, PieceBytes, ScaleQuery, Attend, Merge, Finish};
}

}  // namespace polyad::cpu::POLYAD_ISA
