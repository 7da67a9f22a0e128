// Attention over pages of codes on AMX (attention_coded.h has the algebra): int8 tile products for
// tiles of many rows, lanes for the few of a decode. Both are exact, so a row has the same bits in
// either. Codes of int4, and values, whose 64 tokens lie in four pages, are laid out for the tile
// unit one piece at a time, in memory that stays in L1.
// Tiles: 0-3 sums, 4-5 high and low bytes of the factors, 6-7 codes.

#include "kernels/cpu/attention_coded_lanes.h"
#include "kernels/cpu/isa_functions.h"
#include "kernels/cpu/tile_config.h"

namespace polyad::cpu::POLYAD_ISA {
namespace {

constexpr int64_t kFewRows = 4;  // up to here the lanes are faster
constexpr int64_t kTileBytes = 1024;
constexpr int64_t kTileInts = 256;
constexpr int64_t kRowInts = 16;
constexpr int64_t kLowBytes = 64;  // of a group's factors: the high bytes, then the low ones

void Configure(int64_t num_rows) {
  TileConfig config;
  for (int tile = 0; tile < 8; ++tile) {
    config.rows[tile] = static_cast<uint8_t>(tile < 6 ? num_rows : 16);
    config.row_bytes[tile] = 64;
  }
  LoadTileConfig(config);
}

// AttentionTile::piece beyond the factors: four tiles of sums, two of keys, then a tile of values
// for each 16 dimensions.
int64_t PieceBytes(const KvLayout& layout) {
  return PieceFactorBytes(layout) + (6 + layout.padded_dim / kLanes) * kTileBytes;
}
int32_t* SumsIn(const AttentionTile& tile) {
  return reinterpret_cast<int32_t*>(tile.piece + PieceFactorBytes(tile.pages.layout));
}
char* KeysIn(const AttentionTile& tile) {
  return tile.piece + PieceFactorBytes(tile.pages.layout) + 4 * kTileBytes;
}
char* ValuesIn(const AttentionTile& tile) { return KeysIn(tile) + 2 * kTileBytes; }

// sums[0] + sums[1] of the pair of tiles at `sums`: high and low products of one row.
inline Ints PairAt(const int32_t* sums, int64_t row) {
  return Combine(LoadInts(sums + row * kRowInts), LoadInts(sums + kTileInts + row * kRowInts));
}

// Products of two tiles of codes with the tile's factors at `factors`, rows `stride` apart.
void MultiplyPair(const char* factors, int64_t stride, const char* first, const char* second,
                  int32_t* sums) {
  FinishWrites();
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_loadd(4, factors, stride);
  _tile_loadd(6, first, kQuadBytes);
  _tile_dpbsud(0, 4, 6);
  _tile_loadd(5, factors + kLowBytes, stride);
  _tile_dpbsud(1, 5, 6);
  _tile_loadd(7, second, kQuadBytes);
  _tile_dpbsud(2, 4, 7);
  _tile_dpbsud(3, 5, 7);
  _tile_stored(0, sums, kRowInts * 4);
  _tile_stored(1, sums + kTileInts, kRowInts * 4);
  _tile_stored(2, sums + 2 * kTileInts, kRowInts * 4);
  _tile_stored(3, sums + 3 * kTileInts, kRowInts * 4);
  FinishWrites();
}

void StoreCodesAt(char* to, Codes codes) { _mm512_storeu_si512(to, codes.v); }

// The 16 lines of a group's keys, one dimension in four bytes of a token: as stored where codes are
// bytes. Behind a group that is shorter lies what the factors' zeros silence.
template <bool kHalves>
const char* KeyTile(const KvLayout& layout, const char* page, int64_t group, char* memory) {
  const int64_t first = group * layout.GroupSize(KvPart::kKey);
  if constexpr (!kHalves) return page + layout.KCode(0, first);
  const int64_t left = layout.padded_dim - first;
  const int64_t size = layout.GroupSize(KvPart::kKey);
  const int64_t padded = left < size ? left : size;
  for (int64_t d = 0; d < padded; d += 32) {
    const char* lines = page + layout.KCode(0, first + d);
    char* to = memory + d / kQuad * kQuadBytes;
    ForEachLine([&]<int kLine>(Count<kLine>) {
      Codes lower;
      Codes upper;
      LoadKeyHalves<kLine>(lines, page + layout.KFifths(first + d), lower, upper);
      StoreCodesAt(to + 2 * kLine * kQuadBytes, lower);
      StoreCodesAt(to + (2 * kLine + 1) * kQuadBytes, upper);
    });
  }
  return memory;
}

// Values of the piece's visible blocks, for each 16 dimensions a tile of 16 quads of tokens.
template <bool kHalves>
void GatherValues(const AttentionTile& tile, const Piece<char>& piece, char* values) {
  const KvLayout& layout = tile.pages.layout;
  const int64_t lines = layout.quad_bytes() / kLineBytes;
  for (int64_t quad = piece.block_begin * kQuad; quad < piece.block_end * kQuad; ++quad) {
    const char* line = piece.pages[quad / kQuad] + layout.VCode(quad % kQuad * kQuad, 0);
    char* to = values + quad * kQuadBytes;
    for (int64_t i = 0; i < lines; ++i, line += kLineBytes) {
      if constexpr (!kHalves) {
        StoreCodesAt(to + i * kTileBytes, LoadCodes(line));
      } else {
        Codes lower;
        Codes upper;
        LoadHalves(line, lower, upper);
        StoreCodesAt(to + 2 * i * kTileBytes, lower);
        StoreCodesAt(to + (2 * i + 1) * kTileBytes, upper);
      }
    }
  }
}

template <bool kHalves>
struct TileProducts {
  static void Score(const AttentionTile& tile, const Piece<char>& piece) {
    const KvLayout& layout = tile.pages.layout;
    const int64_t stride = CodedQueryBytes(layout);
    int32_t* sums = SumsIn(tile);
    char* keys = KeysIn(tile);
    for (int64_t group = 0; group < layout.NumGroups(KvPart::kKey); ++group) {
      for (int64_t b = piece.block_begin; b < piece.block_end; b += 2) {
        const int64_t count = piece.block_end - b < 2 ? 1 : 2;
        const char* first = KeyTile<kHalves>(layout, piece.pages[b], group, keys);
        const char* second =
            count == 1 ? first
                       : KeyTile<kHalves>(layout, piece.pages[b + 1], group, keys + kTileBytes);
        MultiplyPair(tile.q + group * kFactorBytes, stride, first, second, sums);
        for (int64_t r = 0; r < tile.num_rows; ++r) {
          const QueryGroup q = QueryGroupAt(tile, r, group);
          for (int64_t i = 0; i < count; ++i) {
            AddScores(PairAt(sums + i * 2 * kTileInts, r), q,
                      piece.pages[b + i] + layout.KScales(group), group == 0,
                      tile.scores + r * kPieceTokens + (b + i) * kBlock);
          }
        }
      }
    }
  }

  static void AddValues(const ValueWork& work) {
    const int64_t dim = work.tile.pages.layout.padded_dim;
    int32_t* sums = SumsIn(work.tile);
    char* codes = ValuesIn(work.tile);
    GatherValues<kHalves>(work.tile, work.piece, codes);
    for (int64_t d = 0; d < dim; d += 2 * kLanes) {  // both of one group
      const int64_t count = dim - d < 2 * kLanes ? 1 : 2;
      const char* first = codes + d / kLanes * kTileBytes;
      MultiplyPair(work.factors.factors + d / kKvGroup * kTileRows * kFactorBytes, kFactorBytes,
                   first, first + (count - 1) * kTileBytes, sums);
      for (int64_t r = 0; r < work.tile.num_rows; ++r) {
        for (int64_t i = 0; i < count; ++i) {
          AddValueDots(PairAt(sums + i * 2 * kTileInts, r), work, r, d + i * kLanes);
        }
      }
    }
  }
};

void Attend(const AttentionTile& tile, int64_t begin, int64_t end, const AttentionPartial& out) {
  BeginSpan(tile, out, &begin, &end);
  if (tile.num_rows <= kFewRows) return AttendInLanes(tile, begin, end, out);
  Configure(tile.num_rows);
  if (tile.pages.layout.halves()) {
    AttendCoded<TileProducts<true>>(tile, begin, end, out);
  } else {
    AttendCoded<TileProducts<false>>(tile, begin, end, out);
  }
  _tile_release();
}

}  // namespace

AttentionKernels MakeCodedAttentionKernels() {
  return {kTileRows, CodedQueryBytes, PieceBytes, ScaleCodedQuery, Attend, Merge, FinishCoded};
}

}  // namespace polyad::cpu::POLYAD_ISA
