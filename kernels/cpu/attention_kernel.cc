// For each row of a tile: values = sum_j 2^(s_j - max) v_j and sum = sum_j 2^(s_j - max), s_j = q . k_j, over a span of
// keys; attention is values / sum. K and V, if bf16, are widened in registers and all sums are fp32: on machines where
// the bf16 dot instruction is slow this is the faster way, elsewhere memory decides.

#include "kernels/cpu/attention_kernel.h"

#include "kernels/cpu/isa_functions.h"
#include "kernels/cpu/kv_layout.h"
#include "kernels/cpu/lanes.h"

namespace polyad::cpu::POLYAD_ISA {
namespace {

constexpr float kNoKey = -__builtin_inff();
constexpr int64_t kPieceBlocks = kPieceTokens / kBlock;

// Rows whose accumulators fit the registers of the level, for scores (two each) and for values.
#if defined(__AVX512F__)
constexpr int kScoreRows = 12;
constexpr int kValueChains = 12;
#else
constexpr int kScoreRows = 2;
constexpr int kValueChains = 4;
#endif

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

// scores[r][token] = q[r] . k[token] for the 16 tokens of NumBlocks blocks: even and odd dimensions apart, then added.
template <int Rows, int NumBlocks, typename Stored>
inline void ScoreBlocks(const Stored* const* pages, const float* q, int64_t padded_dim, float* scores) {
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
    for (int r = 0; r < Rows; ++r) Store(scores + r * kPieceTokens + b * kBlock, even[b][r] + odd[b][r]);
  }
}

template <typename Stored>
void ScorePiece(const AttentionTile& tile, const Piece<Stored>& piece) {
  const int64_t dim = tile.pages.padded_dim;
  ForRowGroups<kScoreRows>(0, tile.num_rows, [&]<int Rows>(Count<Rows>, int64_t row) {
    constexpr int kTogether = 2 * Rows <= kScoreRows ? 2 : 1;  // enough chains to hide latency
    float* scores = tile.scores + row * kPieceTokens;
    int64_t b = piece.block_begin;
    for (; b + kTogether <= piece.block_end; b += kTogether) {
      ScoreBlocks<Rows, kTogether>(piece.pages + b, tile.q + row * dim, dim, scores + b * kBlock);
    }
    if (b < piece.block_end) {
      ScoreBlocks<Rows, 1>(piece.pages + b, tile.q + row * dim, dim, scores + b * kBlock);
    }
  });
}

inline int64_t Within(int64_t value, int64_t high) {
  return value < 0 ? 0 : value > high ? high : value;
}

// Turns row r's scores into weights 2^(s - max), 0 for keys it must not see, and brings max and sum up to date.
// Returns what earlier values must be multiplied by.
template <typename Stored>
float WeighRow(const AttentionTile& tile, const Piece<Stored>& piece, int64_t r,
               const AttentionPartial& out) {
  float* scores = tile.scores + r * kPieceTokens;
  const int64_t key_begin = tile.first_key[r] - piece.begin;
  const int64_t key_end = tile.position[r] + 1 - piece.begin;
  Lanes block_max = Set(kNoKey);
  for (int64_t b = piece.block_begin; b < piece.block_end; ++b) {
    const int64_t begin = Within(key_begin - b * kBlock, kBlock);
    const int64_t end = Within(key_end - b * kBlock, kBlock);
    const Lanes seen = KeepBetween(Load(scores + b * kBlock), begin, end, Set(kNoKey));
    Store(scores + b * kBlock, seen);
    block_max = Max(seen, block_max);
  }
  const float piece_max = MaxOf(block_max);
  const float max = piece_max > out.max[r] ? piece_max : out.max[r];
  const bool none = max == kNoKey;  // no key seen so far: every weight is 0, and so must be -inf - shift
  const float shift = none ? 0.0f : max;
  const float rescale = none ? 1.0f : First(Exp2(Set(out.max[r] - shift)));
  Lanes sum = Load(out.sum + r * kLanes) * Set(rescale);
  for (int64_t b = piece.block_begin; b < piece.block_end; ++b) {
    const Lanes weight = Exp2(Load(scores + b * kBlock) - Set(shift));
    Store(scores + b * kBlock, weight);
    sum = sum + weight;
  }
  Store(out.sum + r * kLanes, sum);
  out.max[r] = max;
  return rescale;
}

// values[r][16 Chunks dims] = values * rescale + sum over the piece's tokens, in order, of weight v[token].
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
    const Stored* pair = piece.pages[token / kBlock] + padded_dim * kBlock +
                         (token % kBlock * padded_dim + d * 2);
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
  const int64_t dim = tile.pages.padded_dim;
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
    Piece<Stored> piece;
    piece.begin = piece_begin;
    piece.block_begin = Within(begin - piece_begin, kPieceTokens) / kBlock;
    piece.token_end = Within(end - piece_begin, kPieceTokens);
    piece.block_end = (piece.token_end + kBlock - 1) / kBlock;
    for (int64_t b = piece.block_begin; b < piece.block_end; ++b) {
      const int64_t block = tile.pages.blocks[piece_begin / kBlock + b];
      piece.pages[b] = reinterpret_cast<const Stored*>(tile.pages.page0 + block * tile.pages.block_stride_bytes);
    }
    ScorePiece(tile, piece);
    for (int64_t r = 0; r < tile.num_rows; ++r) rescale[r] = WeighRow(tile, piece, r, out);
    AddPiece(tile, piece, rescale, out);
  }
}

void Attend(const AttentionTile& tile, int64_t span_begin, int64_t span_end,
            const AttentionPartial& out) {
  int64_t begin = tile.first_key[0];
  int64_t end = tile.position[0] + 1;
  for (int64_t r = 0; r < tile.num_rows; ++r) {
    out.max[r] = kNoKey;
    Store(out.sum + r * kLanes, Zero());
    begin = tile.first_key[r] < begin ? tile.first_key[r] : begin;
    end = tile.position[r] + 1 > end ? tile.position[r] + 1 : end;
  }
  for (int64_t i = 0; i < tile.num_rows * tile.pages.padded_dim; i += kLanes) {
    Store(out.values + i, Zero());
  }
  begin = begin > span_begin ? begin : span_begin;
  end = end < span_end ? end : span_end;
  if (tile.pages.bf16) return AttendAs<uint16_t>(tile, begin, end, out);
  AttendAs<float>(tile, begin, end, out);
}

void Merge(const AttentionPartial& next, int64_t num_rows, int64_t padded_dim,
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

void Finish(const AttentionPartial& total, int64_t row, int64_t padded_dim, int64_t head_dim,
            bool bf16_out, void* out) {
  const Lanes inverse = Set(1.0f / Sum(Load(total.sum + row * kLanes)));
  const float* values = total.values + row * padded_dim;
  if (bf16_out) return FinishAs(values, inverse, head_dim, static_cast<uint16_t*>(out));
  FinishAs(values, inverse, head_dim, static_cast<float*>(out));
}

void ScaleQuery(const float* q, int64_t head_dim, float factor, float* scaled) {
  for (int64_t d = 0; d < head_dim; d += kLanes) {
    const int64_t valid = head_dim - d < kLanes ? head_dim - d : kLanes;
    Store(scaled + d, LoadFirst(q + d, valid) * Set(factor));
  }
}

}  // namespace

AttentionKernels MakeAttentionKernels() { return {ScaleQuery, Attend, Merge, Finish}; }

}  // namespace polyad::cpu::POLYAD_ISA
