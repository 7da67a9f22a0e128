#pragma once

// Attention over pages of codes (kv_codes.h), all but the integer products, which lanes and tiles
// do each in their way and both exactly (code_dots.h): a row has the same bits by either. With
// q = unit * n and k = scale * code + low per group of dimensions,
//   q . k = unit scale (n . code) + low unit sum(n),
// and with weight * scale of a piece's tokens as unit * n,
//   sum_t weight v = unit (n . code) + sum_t weight low.
// n are whole numbers within +-kTopFactor: 16 bits of the largest of a query's group, or of a
// piece's weights. Only for sources compiled per level.

#include "kernels/cpu/attention_kernel.h"
#include "kernels/cpu/attention_softmax.h"
#include "kernels/cpu/code_dots.h"
#include "kernels/cpu/kv_layout.h"
#include "kernels/cpu/lanes.h"
#include "kernels/cpu/turn_lanes.h"

namespace polyad::cpu::POLYAD_ISA {

static_assert(kPieceTokens == kKvGroup, "both make kFactorBytes");
inline constexpr float kLeastLargest = 1e-30f;  // below it a unit could vanish: as good as 0

// A row of the tile's queries: factors of each group, then unit and unit * sum of each group.
inline int64_t CodedQueryBytes(const KvLayout& layout) {
  const int64_t groups = layout.NumGroups(KvPart::kKey);
  const int64_t floats = 2 * groups * static_cast<int64_t>(sizeof(float));
  return groups * kFactorBytes + (floats + kLineBytes - 1) / kLineBytes * kLineBytes;
}

struct QueryGroup {
  const char* factors;
  float unit;
  float sum;
};
inline QueryGroup QueryGroupAt(const AttentionTile& tile, int64_t row, int64_t group) {
  const char* q = tile.q + row * CodedQueryBytes(tile.pages.layout);
  QueryGroup out{q + group * kFactorBytes, 0, 0};
  const char* floats = q + tile.pages.layout.NumGroups(KvPart::kKey) * kFactorBytes + group * 8;
  std::memcpy(&out.unit, floats, sizeof(out.unit));
  std::memcpy(&out.sum, floats + 4, sizeof(out.sum));
  return out;
}

// What a piece's weights become, in AttentionTile::piece.
struct PieceFactors {
  char* factors;  // [groups][kTileRows][kFactorBytes]
  float* units;   // [groups][kTileRows]
  float* biases;  // [groups][kTileRows]: sums of weight * low
};
inline int64_t PieceFactorBytes(const KvLayout& layout) {
  return layout.NumGroups(KvPart::kValue) * kTileRows *
         (kFactorBytes + 2 * static_cast<int64_t>(sizeof(float)));
}
inline PieceFactors FactorsIn(const AttentionTile& tile) {
  const int64_t groups = tile.pages.layout.NumGroups(KvPart::kValue);
  auto* units = reinterpret_cast<float*>(tile.piece + groups * kTileRows * kFactorBytes);
  return {tile.piece, units, units + groups * kTileRows};
}

// Adds a group's part to the scores of the 16 tokens of a block, which the first group begins.
inline void AddScores(Ints dots, const QueryGroup& q, const char* scaling, bool begins,
                      float* scores) {
  const auto* line = reinterpret_cast<const uint16_t*>(scaling);
  const Lanes before = begins ? Zero() : Load(scores);
  const Lanes lows = Fma(Load(line + kBlock), Set(q.sum), before);
  Store(scores, Fma(ToLanes(dots), Load(line) * Set(q.unit), lows));
}

// x where the weight counts. Tokens of weight 0 may have anything for a scale; gates may be
// negative.
inline Lanes WhereWeighed(Lanes weight, Lanes x, Lanes otherwise) {
  return SelectLess(Zero(), Max(weight, Zero() - weight), x, otherwise);
}

// Row r's weights, times the scales of group `group`, as factors.
inline void FactorRow(const AttentionTile& tile, const Piece<char>& piece, int64_t group, int64_t r,
                      const PieceFactors& out) {
  const float* weights = tile.scores + r * kPieceTokens;
  Lanes scaled[kPieceBlocks];
  Lanes largest = Zero();
  Lanes bias = Zero();
  for (int64_t b = 0; b < kPieceBlocks; ++b) {
    scaled[b] = Zero();
    if (b < piece.block_begin || b >= piece.block_end) continue;
    const auto* line =
        reinterpret_cast<const uint16_t*>(piece.pages[b] + tile.pages.layout.VScales(group));
    const Lanes weight = Load(weights + b * kBlock);
    scaled[b] = WhereWeighed(weight, weight * Load(line), Zero());
    bias = WhereWeighed(weight, Fma(weight, Load(line + kBlock), bias), bias);
    largest = Max(Max(scaled[b], Zero() - scaled[b]), largest);
  }
  const int64_t at = group * kTileRows + r;
  const float top = MaxOf(largest);
  const bool counts = top > kLeastLargest;
  const Lanes inverse = Set(counts ? kTopFactor / top : 0.0f);
  out.units[at] = counts ? top / kTopFactor : 0.0f;
  out.biases[at] = Sum(bias);
  for (int64_t b = 0; b < kPieceBlocks; ++b) {
    StoreFactors(out.factors + at * kFactorBytes, b * kBlock, RoundToInts(scaled[b] * inverse));
  }
}

inline void FactorPiece(const AttentionTile& tile, const Piece<char>& piece,
                        const PieceFactors& out) {
  for (int64_t group = 0; group < tile.pages.layout.NumGroups(KvPart::kValue); ++group) {
    for (int64_t r = 0; r < tile.num_rows; ++r) FactorRow(tile, piece, group, r, out);
  }
}

// A query: turned where keys are, then each group in 16 bits of its largest number.
inline void ScaleCodedQuery(const float* q, int64_t head_dim, float factor, const KvLayout& layout,
                            char* scaled) {
  const int64_t groups = layout.NumGroups(KvPart::kKey);
  const int64_t group_size = layout.GroupSize(KvPart::kKey);
  char* floats = scaled + groups * kFactorBytes;
  for (int64_t group = 0; group < groups; ++group) {
    const int64_t d = group * group_size;
    const int64_t left = layout.padded_dim - d;
    const int64_t padded = left < group_size ? left : group_size;
    float values[kKvGroup] = {};
    for (int64_t i = 0; i < padded && d + i < head_dim; ++i) values[i] = q[d + i] * factor;
    if (IsTurned(layout.format)) TurnBack(padded, values);
    Lanes largest = Zero();
    Lanes poison = Zero();  // a NaN or an infinity makes the group's unit a NaN
    for (int64_t i = 0; i < padded; i += kLanes) {
      const Lanes x = Load(values + i);
      largest = Max(Max(x, Zero() - x), largest);
      poison = poison + (x - x);
    }
    const float top = MaxOf(largest);
    const bool counts = top > kLeastLargest;
    const Lanes inverse = Set(counts ? kTopFactor / top : 0.0f);
    Lanes sum = Zero();
    for (int64_t i = 0; i < kKvGroup; i += kLanes) {
      const Ints whole = RoundToInts(Load(values + i) * inverse);
      StoreFactors(scaled + group * kFactorBytes, i, whole);
      sum = sum + ToLanes(whole);
    }
    const float unit = Sum(poison) + (counts ? top / kTopFactor : 0.0f);
    const float unit_sum = Sum(sum) * unit;  // whole numbers below 2^24: exact until here
    std::memcpy(floats + group * 8, &unit, sizeof(unit));
    std::memcpy(floats + group * 8 + 4, &unit_sum, sizeof(unit_sum));
  }
}

inline void FinishCoded(const AttentionPartial& total, int64_t row, const KvLayout& layout,
                        int64_t head_dim, bool bf16_out, void* out) {
  float* values = total.values + row * layout.padded_dim;
  for (int64_t d = 0; IsTurned(layout.format) && d < layout.padded_dim; d += kKvGroup) {
    TurnBack(layout.padded_dim - d < kKvGroup ? layout.padded_dim - d : kKvGroup, values + d);
  }
  Finish(total, row, layout, head_dim, bf16_out, out);
}

// The second half of a piece: what its factors add to [num_rows][padded_dim] values.
struct ValueWork {
  const AttentionTile& tile;
  const Piece<char>& piece;
  const PieceFactors& factors;
  const float* rescale;  // [num_rows]
  float* values;
};

// values[row][d, d + 16) = values * rescale + the piece's part, from the dots of its factors.
inline void AddValueDots(Ints dots, const ValueWork& work, int64_t row, int64_t d) {
  const int64_t at = d / kKvGroup * kTileRows + row;
  float* values = work.values + row * work.tile.pages.layout.padded_dim + d;
  const Lanes before = Fma(Load(values), Set(work.rescale[row]), Set(work.factors.biases[at]));
  Store(values, Fma(ToLanes(dots), Set(work.factors.units[at]), before));
}

// All of a span: Products has Score(tile, piece), for the scores of the piece's visible blocks, and
// AddValues(work).
template <typename Products>
void AttendCoded(const AttentionTile& tile, int64_t begin, int64_t end,
                 const AttentionPartial& out) {
  const PieceFactors factors = FactorsIn(tile);
  float rescale[kTileRows];
  for (int64_t at = begin / kPieceTokens * kPieceTokens; at < end; at += kPieceTokens) {
    const auto piece = PieceAt<char>(tile.pages, at, begin, end);
    Products::Score(tile, piece);
    FetchNext(tile, piece, end);
    WeighPiece(tile, piece, tile.scores, out, rescale);
    FactorPiece(tile, piece, factors);
    Products::AddValues(ValueWork{tile, piece, factors, rescale, out.values});
  }
}

}  // namespace polyad::cpu::POLYAD_ISA
