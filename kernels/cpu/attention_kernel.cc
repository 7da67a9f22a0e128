// For each row of a tile: values = sum_j 2^(s_j - max) v_j and sum = sum_j 2^(s_j - max), s_j = q .
// k_j, over a span of keys; attention is values / sum. K and V, if bf16, are widened in registers
// and all sums are fp32: on machines where the bf16 dot instruction is slow this is the faster way,
// elsewhere memory decides.

#include "kernels/cpu/attention_kernel.h"

#include "kernels/cpu/attention_softmax.h"
#include "kernels/cpu/isa_functions.h"
#include "kernels/cpu/lanes.h"

namespace polyad::cpu::POLYAD_ISA {
namespace {

constexpr int64_t kLaneTileRows = 12;  // 12 x 2 accumulators and 2 operands fill 32 registers

// Rows whose accumulators fit the registers of the level, for scores (two each) and for values.
#if defined(__AVX512F__)
constexpr int kScoreRows = 12;
constexpr int kValueChains = 12;
#else
constexpr int kScoreRows = 2;
constexpr int kValueChains = 4;
#endif

// scores[r][token] = q[r] . k[token] for the 16 tokens of NumBlocks blocks: even and odd dimensions
// apart, then added.
template <int Rows, int NumBlocks, typename Stored>
inline void ScoreBlocks(const Stored* const* pages, const float* q, int64_t padded_dim,
                        float* scores) {
  Lanes even[NumBlocks][Rows];
  Lanes odd[NumBlocks][Rows];
  for (int b = 0; b < NumBlocks; ++b) {
    for (int r = 0; r < Rows; ++r) even[b][r] = odd[b][r] = Zero();
  }
  for (int64_t d = 0; d < padded_dim; d += 2) {
    for (int b = 0; b < NumBlocks; ++b) {
      Lanes k_even;
      Lanes k_odd;
      LoadPair(pages[b] + d / 2 * kPairValues, k_even, k_odd);
      for (int r = 0; r < Rows; ++r) {
        even[b][r] = Fma(Set(q[r * padded_dim + d]), k_even, even[b][r]);
        odd[b][r] = Fma(Set(q[r * padded_dim + d + 1]), k_odd, odd[b][r]);
      }
    }
  }
  for (int b = 0; b < NumBlocks; ++b) {
    for (int r = 0; r < Rows; ++r)
      Store(scores + r * kPieceTokens + b * kBlock, even[b][r] + odd[b][r]);
  }
}

template <typename Stored>
void ScorePiece(const AttentionTile& tile, const Piece<Stored>& piece) {
  const int64_t dim = tile.pages.layout.padded_dim;
  const auto* q = reinterpret_cast<const float*>(tile.q);
  ForRowGroups<kScoreRows>(0, tile.num_rows, [&]<int Rows>(Count<Rows>, int64_t row) {
    constexpr int kTogether = 2 * Rows <= kScoreRows ? 2 : 1;  // enough chains to hide latency
    float* scores = tile.scores + row * kPieceTokens;
    int64_t b = piece.block_begin;
    for (; b + kTogether <= piece.block_end; b += kTogether) {
      ScoreBlocks<Rows, kTogether>(piece.pages + b, q + row * dim, dim, scores + b * kBlock);
    }
    if (b < piece.block_end) {
      ScoreBlocks<Rows, 1>(piece.pages + b, q + row * dim, dim, scores + b * kBlock);
    }
  });
}

// values[r][16 Chunks dims] = values * rescale + sum over the piece's tokens, in order, of weight
// v[token].
template <int Rows, int Chunks, typename Stored>
inline void AddValues(const Piece<Stored>& piece, const float* weights, const float* rescale,
                      int64_t d, int64_t padded_dim, float* values) {
  Lanes sums[Rows][Chunks];
  for (int r = 0; r < Rows; ++r) {
    for (int c = 0; c < Chunks; ++c) {
      sums[r][c] = Load(values + r * padded_dim + d + c * kLanes) * Set(rescale[r]);
    }
  }
  for (int64_t token = piece.block_begin * kBlock; token < piece.token_end; token += 2) {
    const Stored* pair =
        piece.pages[token / kBlock] + padded_dim * kBlock + (token % kBlock * padded_dim + d * 2);
    const bool has_odd = token + 1 < piece.token_end;  // what lies past the end may be anything
    for (int c = 0; c < Chunks; ++c) {
      Lanes even;
      Lanes odd;
      LoadPair(pair + c * kPairValues, even, odd);
      for (int r = 0; r < Rows; ++r) {
        sums[r][c] = Fma(Set(weights[r * kPieceTokens + token]), even, sums[r][c]);
      }
      if (!has_odd) continue;
      for (int r = 0; r < Rows; ++r) {
        sums[r][c] = Fma(Set(weights[r * kPieceTokens + token + 1]), odd, sums[r][c]);
      }
    }
  }
  for (int r = 0; r < Rows; ++r) {
    for (int c = 0; c < Chunks; ++c) Store(values + r * padded_dim + d + c * kLanes, sums[r][c]);
  }
}

template <typename Stored>
void AddPiece(const AttentionTile& tile, const Piece<Stored>& piece, const float* rescale,
              const AttentionPartial& out) {
  const int64_t dim = tile.pages.layout.padded_dim;
  ForRowGroups<kValueChains>(0, tile.num_rows, [&]<int Rows>(Count<Rows>, int64_t row) {
    constexpr int kChunks = Rows * 4 <= kValueChains ? 4 : Rows * 2 <= kValueChains ? 2 : 1;
    const float* weights = tile.scores + row * kPieceTokens;
    float* values = out.values + row * dim;
    int64_t d = 0;
    for (; d + kChunks * kLanes <= dim; d += kChunks * kLanes) {
      AddValues<Rows, kChunks>(piece, weights, rescale + row, d, dim, values);
    }
    for (; d < dim; d += kLanes) AddValues<Rows, 1>(piece, weights, rescale + row, d, dim, values);
  });
}

template <typename Stored>
void AttendAs(const AttentionTile& tile, int64_t begin, int64_t end, const AttentionPartial& out) {
  float rescale[kTileRows];
  for (int64_t piece_begin = begin / kPieceTokens * kPieceTokens; piece_begin < end;
       piece_begin += kPieceTokens) {
    const auto piece = PieceAt<Stored>(tile.pages, piece_begin, begin, end);
    ScorePiece(tile, piece);
    FetchNext(tile, piece, end);
    WeighPiece(tile, piece, tile.scores, out, rescale);
    AddPiece(tile, piece, rescale, out);
  }
}

void Attend(const AttentionTile& tile, int64_t span_begin, int64_t span_end,
            const AttentionPartial& out) {
  BeginSpan(tile, out, &span_begin, &span_end);
  if (tile.pages.layout.bf16()) return AttendAs<uint16_t>(tile, span_begin, span_end, out);
  AttendAs<float>(tile, span_begin, span_end, out);
}

int64_t QueryBytes(const KvLayout& layout) {
  return layout.padded_dim * static_cast<int64_t>(sizeof(float));
}

int64_t NoPieceBytes(const KvLayout&) { return 0; }

void ScaleQuery(const float* q, int64_t head_dim, float factor, const KvLayout&, char* scaled) {
  auto* out = reinterpret_cast<float*>(scaled);
  for (int64_t d = 0; d < head_dim; d += kLanes) {
    const int64_t valid = head_dim - d < kLanes ? head_dim - d : kLanes;
    Store(out + d, LoadFirst(q + d, valid) * Set(factor));
  }
}

}  // namespace

AttentionKernels MakeAttentionKernels() {
  return {kLaneTileRows, QueryBytes, NoPieceBytes, ScaleQuery, Attend, Merge, Finish};
}

}  // namespace polyad::cpu::POLYAD_ISA
