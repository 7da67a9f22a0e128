#include "engine/adapters/row_squares.h"

#include <algorithm>

#include "absl/functional/function_ref.h"
#include "engine/adapters/lowering_ops.h"
#include "engine/base/give_way.h"

namespace polyad {
namespace {

// Eight sums side by side. Products of two floats are exact in fp64, so that every compilation of
// these loops gives the same bits.
constexpr int64_t kLanes = 8;
typedef double Lanes __attribute__((vector_size(kLanes * sizeof(double)), aligned(8), may_alias));
constexpr int64_t kTile = 4;  // rows by rows whose sums stay in registers

// What is left of |W|^2 + |B A|^2 where the terms of the sum cancel: below this share, the bf16
// rounding of the products (2^-9 of one term in sqrt(in)) would be felt in the result.
constexpr double kLeastShare = 1.0 / 16;

// So many numbers of each row are widened to fp64 at a time: they stay in cache, and no large
// memory is asked of the system for every matrix of an adapter.
constexpr int64_t kChunk = 256;

// sums[i][j] = a's row i . b's row j
__attribute__((always_inline)) inline void TileLoop(const double* a, const double* b,
                                                    double sums[kTile][kTile]) {
  Lanes lanes[kTile][kTile] = {};
  for (int64_t k = 0; k < kChunk; k += kLanes) {
    for (int64_t i = 0; i < kTile; ++i) {
      const Lanes left = *reinterpret_cast<const Lanes*>(a + i * kChunk + k);
      for (int64_t j = 0; j < kTile; ++j) {
        lanes[i][j] += left * *reinterpret_cast<const Lanes*>(b + j * kChunk + k);
      }
    }
  }
  for (int64_t i = 0; i < kTile; ++i) {
    for (int64_t j = 0; j < kTile; ++j) {
      sums[i][j] = 0;
      for (int64_t lane = 0; lane < kLanes; ++lane) sums[i][j] += lanes[i][j][lane];
    }
  }
}

// forms[i] = b[i] gram b[i]'
__attribute__((always_inline)) inline void FormsLoop(const Matrix& b,
                                                     const std::vector<double>& gram,
                                                     std::vector<double>& forms) {
  const auto rank = static_cast<size_t>(b.cols);
  std::vector<double> sums(rank);
  for (int64_t i = 0; i < b.rows; ++i) {
    const float* row = b.Row(i);
    std::fill(sums.begin(), sums.end(), 0.0);
    for (size_t k = 0; k < rank; ++k) {
      const double factor = row[k];
      const double* from = gram.data() + k * rank;
      for (size_t j = 0; j < rank; ++j) sums[j] += factor * from[j];
    }
    double form = 0;
    for (size_t j = 0; j < rank; ++j) form += sums[j] * static_cast<double>(row[j]);
    forms[static_cast<size_t>(i)] = form;
  }
}

#if defined(__x86_64__)
__attribute__((target("avx512f"))) void TileWide(const double* a, const double* b,
                                                 double sums[kTile][kTile]) {
  TileLoop(a, b, sums);
}
__attribute__((target("avx512f"))) void FormsWide(const Matrix& b, const std::vector<double>& gram,
                                                  std::vector<double>& forms) {
  FormsLoop(b, gram, forms);
}
const bool kWide = __builtin_cpu_supports("avx512f") != 0;
#else
void TileWide(const double* a, const double* b, double sums[kTile][kTile]) { TileLoop(a, b, sums); }
void FormsWide(const Matrix& b, const std::vector<double>& gram, std::vector<double>& forms) {
  FormsLoop(b, gram, forms);
}
constexpr bool kWide = false;
#endif

void Tile(const double* a, const double* b, double sums[kTile][kTile]) {
  if (kWide) return TileWide(a, b, sums);
  TileLoop(a, b, sums);
}

// gram += rows rows' for the upper triangle of a chunk's rows, [whole tiles][kChunk].
void AddGram(const std::vector<double>& rows, int64_t count, std::vector<double>& gram) {
  double sums[kTile][kTile];
  for (int64_t i = 0; i < count; i += kTile) {
    for (int64_t j = i; j < count; j += kTile) {
      Tile(rows.data() + i * kChunk, rows.data() + j * kChunk, sums);
      for (int64_t left = i; left < std::min(i + kTile, count); ++left) {
        for (int64_t right = std::max(left, j); right < std::min(j + kTile, count); ++right) {
          gram[static_cast<size_t>(left * count + right)] += sums[left - i][right - j];
        }
      }
    }
  }
}

// `widen` fills [count][kChunk] with numbers [begin, end) of every row; what is past them is zero.
std::vector<double> GramOf(int64_t count, int64_t depth,
                           absl::FunctionRef<void(int64_t, int64_t, double*)> widen) {
  std::vector<double> rows(static_cast<size_t>((count + kTile - 1) / kTile * kTile * kChunk));
  std::vector<double> gram(static_cast<size_t>(count * count));
  for (int64_t begin = 0; begin < depth; begin += kChunk) {
    const int64_t end = std::min(depth, begin + kChunk);
    if (end - begin < kChunk) std::fill(rows.begin(), rows.end(), 0.0);
    widen(begin, end, rows.data());
    AddGram(rows, count, gram);
  }
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t j = 0; j < i; ++j) {
      gram[static_cast<size_t>(i * count + j)] = gram[static_cast<size_t>(j * count + i)];
    }
  }
  return gram;
}

std::vector<double> QuadraticForms(const Matrix& b, const std::vector<double>& gram) {
  std::vector<double> forms(static_cast<size_t>(b.rows));
  if (kWide) {
    FormsWide(b, gram, forms);
  } else {
    FormsLoop(b, gram, forms);
  }
  return forms;
}

StatusOr<std::vector<double>> SquaresOfTheSum(const LoweringContext& context, SiteRef site,
                                              const Matrix& b, const Matrix& a) {
  POLYAD_ASSIGN_OR_RETURN(Matrix changed, BaseWeight(context, site));
  const Matrix delta = Multiply(b, a);
  std::vector<double> squares(static_cast<size_t>(changed.rows));
  for (int64_t i = 0; i < changed.rows; ++i) {
    float* row = changed.Row(i);
    for (int64_t j = 0; j < changed.cols; ++j) row[j] += delta.At(i, j);
    squares[static_cast<size_t>(i)] = SumOfSquares(row, changed.cols);
  }
  return squares;
}

}  // namespace

std::vector<double> RowGram(const Matrix& m) {
  return GramOf(m.rows, m.cols, [&](int64_t begin, int64_t end, double* to) {
    for (int64_t i = 0; i < m.rows; ++i, to += kChunk) {
      std::copy(m.Row(i) + begin, m.Row(i) + end, to);
    }
  });
}

std::vector<double> ColumnGram(const Matrix& m) {
  return GramOf(m.cols, m.rows, [&](int64_t begin, int64_t end, double* to) {
    for (int64_t k = begin; k < end; ++k, ++to) {
      const float* row = m.Row(k);
      for (int64_t j = 0; j < m.cols; ++j) to[j * kChunk] = row[j];
    }
  });
}

StatusOr<std::vector<double>> ChangedRowSquares(const LoweringContext& context, SiteRef site,
                                                const Matrix& b, const Matrix& a) {
  if (2 * a.rows > a.cols) return SquaresOfTheSum(context, site, b, a);  // no more work
  POLYAD_ASSIGN_OR_RETURN(const BaseWeights* base, context.Base());
  POLYAD_ASSIGN_OR_RETURN(std::vector<double> squares, base->RowSquares(site, a.cols));
  const TensorView inputs{a.values.data(), DType::kF32, a.rows, a.cols};
  POLYAD_ASSIGN_OR_RETURN(const std::vector<float> products, base->Products(site, inputs));
  GiveWay();
  const std::vector<double> forms = QuadraticForms(b, RowGram(a));
  GiveWay();
  for (int64_t i = 0; i < b.rows; ++i) {
    double cross = 0;
    for (int64_t k = 0; k < a.rows; ++k) {
      cross += static_cast<double>(b.At(i, k)) * products[static_cast<size_t>(k * b.rows + i)];
    }
    double& square = squares[static_cast<size_t>(i)];
    const double terms = square + forms[static_cast<size_t>(i)];
    square = terms + 2 * cross;
    if (!(square > kLeastShare * terms)) return SquaresOfTheSum(context, site, b, a);
  }
  return squares;
}

}  // namespace polyad
