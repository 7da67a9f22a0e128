#pragma once

// The integer products of attention over codes in lanes (attention_coded.h): scores of 16 tokens
// and values of 16 dimensions at a time, a line of codes for all rows of the tile. Only for sources
// compiled per level.

#include "kernels/cpu/attention_coded.h"

namespace polyad::cpu::POLYAD_ISA {

// Rows whose sums fit the registers of the level, for scores and for values of 32 dimensions.
#if defined(__AVX512F__)
inline constexpr int kCodedScoreRows = 12;
inline constexpr int kCodedValueRows = 6;
#else
inline constexpr int kCodedScoreRows = 4;
inline constexpr int kCodedValueRows = 2;
#endif

// Calls f for each of the four lines that hold 32 dimensions of int4 keys.
template <typename Function>
inline void ForEachLine(Function f) {
  f(Count<0>());
  f(Count<1>());
  f(Count<2>());
  f(Count<3>());
}

// Adds the dimensions from `first` on, 32 of int4 or 16 of int8, to the dots of every row.
template <bool kHalves, int Rows>
inline void AddKeys(const KvLayout& layout, const char* page, int64_t first, const QueryGroup* q,
                    int64_t quad, Dots* dots) {
  const char* lines = page + layout.KCode(0, first);
  if constexpr (kHalves) {
    ForEachLine([&]<int kLine>(Count<kLine>) {
      Codes lower;
      Codes upper;
      LoadKeyHalves<kLine>(lines, page + layout.KFifths(first), lower, upper);
      for (int r = 0; r < Rows; ++r) AddQuad(dots[r], lower, q[r].factors, quad + 2 * kLine);
      for (int r = 0; r < Rows; ++r) AddQuad(dots[r], upper, q[r].factors, quad + 2 * kLine + 1);
    });
  } else {
    for (int64_t i = 0; i < kQuad; ++i) {
      const Codes codes = LoadCodes(lines + i * kLineBytes);
      for (int r = 0; r < Rows; ++r) AddQuad(dots[r], codes, q[r].factors, quad + i);
    }
  }
}

// scores[row + r][token] for the 16 tokens of NumBlocks blocks.
template <bool kHalves, int Rows, int NumBlocks>
inline void ScoreCodedBlocks(const AttentionTile& tile, const char* const* pages, int64_t row,
                             float* scores) {
  constexpr int64_t kTogether = kHalves ? 32 : 16;  // dimensions
  const KvLayout& layout = tile.pages.layout;
  const int64_t group_size = layout.GroupSize(KvPart::kKey);
  for (int64_t group = 0; group < layout.NumGroups(KvPart::kKey); ++group) {
    const int64_t first = group * group_size;
    const int64_t left = layout.padded_dim - first;
    const int64_t padded = left < group_size ? left : group_size;
    QueryGroup q[Rows];
    Dots dots[NumBlocks][Rows];
    for (int r = 0; r < Rows; ++r) q[r] = QueryGroupAt(tile, row + r, group);
    for (int b = 0; b < NumBlocks; ++b) {
      for (int r = 0; r < Rows; ++r) dots[b][r] = ZeroDots();
    }
    for (int64_t d = 0; d < padded; d += kTogether) {
      for (int b = 0; b < NumBlocks; ++b) {
        AddKeys<kHalves, Rows>(layout, pages[b], first + d, q, d / kQuad, dots[b]);
      }
    }
    for (int b = 0; b < NumBlocks; ++b) {
      for (int r = 0; r < Rows; ++r) {
        AddScores(ValueOf(dots[b][r]), q[r], pages[b] + layout.KScales(group), group == 0,
                  scores + r * kPieceTokens + b * kBlock);
      }
    }
  }
}

// The dots of rows [row, row + Rows) with dimensions [d, d + 16 Chunks) of the piece's values, all
// of one group. Of int4 a line holds two chunks.
template <bool kHalves, int Rows, int Chunks>
inline void AddValueQuads(const ValueWork& work, int64_t row, int64_t d,
                          Dots (&dots)[Rows][Chunks]) {
  const KvLayout& layout = work.tile.pages.layout;
  const char* factors = work.factors.factors + (d / kKvGroup * kTileRows + row) * kFactorBytes;
  for (int r = 0; r < Rows; ++r) {
    for (int c = 0; c < Chunks; ++c) dots[r][c] = ZeroDots();
  }
  const int64_t quad_end = (work.piece.token_end + kQuad - 1) / kQuad;
  for (int64_t quad = work.piece.block_begin * kQuad; quad < quad_end; ++quad) {
    const char* line = work.piece.pages[quad / kQuad] + layout.VCode(quad % kQuad * kQuad, d);
    Codes codes[Chunks];
    if constexpr (!kHalves) {
      for (int c = 0; c < Chunks; ++c) codes[c] = LoadCodes(line + c * kLineBytes);
    } else {
      for (int c = 0; c < Chunks; c += 2) {
        LoadHalves(line + c / 2 * kLineBytes, codes[c], codes[c + 1]);
      }
    }
    for (int r = 0; r < Rows; ++r) {
      for (int c = 0; c < Chunks; ++c) {
        AddQuad(dots[r][c], codes[c], factors + r * kFactorBytes, quad);
      }
    }
  }
}

template <bool kHalves>
struct LaneProducts {
  static void Score(const AttentionTile& tile, const Piece<char>& piece) {
    ForRowGroups<kCodedScoreRows>(0, tile.num_rows, [&]<int Rows>(Count<Rows>, int64_t row) {
      constexpr int kTogether = 2 * Rows <= kCodedScoreRows ? 2 : 1;  // chains to hide latency
      float* scores = tile.scores + row * kPieceTokens;
      int64_t b = piece.block_begin;
      for (; b + kTogether <= piece.block_end; b += kTogether) {
        ScoreCodedBlocks<kHalves, Rows, kTogether>(tile, piece.pages + b, row, scores + b * kBlock);
      }
      if (b < piece.block_end) {
        ScoreCodedBlocks<kHalves, Rows, 1>(tile, piece.pages + b, row, scores + b * kBlock);
      }
    });
  }

  template <int Rows, int Chunks>
  static void AddChunks(const ValueWork& work, int64_t row, int64_t d) {
    Dots dots[Rows][Chunks];
    AddValueQuads<kHalves, Rows, Chunks>(work, row, d, dots);
    for (int r = 0; r < Rows; ++r) {
      for (int c = 0; c < Chunks; ++c) {
        AddValueDots(ValueOf(dots[r][c]), work, row + r, d + c * kLanes);
      }
    }
  }

  static void AddValues(const ValueWork& work) {
    const int64_t dim = work.tile.pages.layout.padded_dim;
    ForRowGroups<kCodedValueRows>(0, work.tile.num_rows, [&]<int Rows>(Count<Rows>, int64_t row) {
      constexpr int kChunks = 2 * Rows <= kCodedValueRows ? 4 : 2;
      int64_t d = 0;  // a group begins with a run of chunks, so none of them lies in two groups
      for (; d + kChunks * kLanes <= dim; d += kChunks * kLanes) {
        AddChunks<Rows, kChunks>(work, row, d);
      }
      for (; d + 2 * kLanes <= dim; d += 2 * kLanes) AddChunks<Rows, 2>(work, row, d);
      if constexpr (!kHalves) {
        if (d < dim) AddChunks<Rows, 1>(work, row, d);
      }
    });
  }
};

inline void AttendInLanes(const AttentionTile& tile, int64_t begin, int64_t end,
                          const AttentionPartial& out) {
  if (tile.pages.layout.halves()) {
    return AttendCoded<LaneProducts<true>>(tile, begin, end, out);
  }
  AttendCoded<LaneProducts<false>>(tile, begin, end, out);
}

}  // namespace polyad::cpu::POLYAD_ISA
