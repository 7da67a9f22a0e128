#include "engine/adapters/row_squares.h"

#include <algorithm>

#include "absl/functional/function_ref.h"
#include "engine/adapters/lowering_ops.h"
#include "engine/base/check.h"
#include "engine/base/give_way.h"
#include "engine/io/float_bits.h"

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

// The rows of b [rows, rank] times a gram whose columns are padded with zeros to `stride`, a
// multiple of kLanes.
struct Forms {
  const float* b;
  int64_t rank;
  const double* gram;  // [rank, stride]
  int64_t stride;
};

// forms[i] = b[i] gram b[i]' for kTile rows from `row`; sums is [kTile][stride].
__attribute__((always_inline)) inline void FormsLoop(const Forms& of, int64_t row, double* sums,
                                                     double* forms) {
  const float* b = of.b + row * of.rank;
  for (int64_t j = 0; j < of.stride; j += kLanes) {
    Lanes lanes[kTile] = {};
    for (int64_t k = 0; k < of.rank; ++k) {
      const Lanes from = *reinterpret_cast<const Lanes*>(of.gram + k * of.stride + j);
      for (int64_t i = 0; i < kTile; ++i) {
        lanes[i] += static_cast<double>(b[i * of.rank + k]) * from;
      }
    }
    for (int64_t i = 0; i < kTile; ++i) {
      *reinterpret_cast<Lanes*>(sums + i * of.stride + j) = lanes[i];
    }
  }
  for (int64_t i = 0; i < kTile; ++i) {
    double form = 0;
    for (int64_t j = 0; j < of.rank; ++j) {
      form += sums[i * of.stride + j] * static_cast<double>(b[i * of.rank + j]);
    }
    forms[row + i] = form;
  }
}

#if defined(__x86_64__)
__attribute__((target("avx512f"))) void TileWide(const double* a, const double* b,
                                                 double sums[kTile][kTile]) {
  TileLoop(a, b, sums);
}
__attribute__((target("avx512f"))) void FormsWide(const Forms& of, int64_t row, double* sums,
                                                  double* forms) {
  FormsLoop(of, row, sums, forms);
}
const bool kWide = __builtin_cpu_supports("avx512f") != 0;
#else
void TileWide(const double* a, const double* b, double sums[kTile][kTile]) { TileLoop(a, b, sums); }
void FormsWide(const Forms& of, int64_t row, double* sums, double* forms) {
  FormsLoop(of, row, sums, forms);
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

// b[i] gram b[i]' for each row of b. Rows go by fours, the last ones with rows of zeros.
std::vector<double> QuadraticForms(const Matrix& b, const std::vector<double>& gram) {
  const int64_t rank = b.cols;
  const int64_t stride = (rank + kLanes - 1) / kLanes * kLanes;
  std::vector<double> padded(static_cast<size_t>(rank * stride));
  for (int64_t k = 0; k < rank; ++k) {
    std::copy_n(gram.begin() + k * rank, rank, padded.begin() + k * stride);
  }
  std::vector<double> sums(static_cast<size_t>(kTile * stride));
  std::vector<double> forms(static_cast<size_t>(b.rows + kTile));
  const auto run = [&](const Forms& of, int64_t row, double* to) {
    if (kWide) return FormsWide(of, row, sums.data(), to);
    FormsLoop(of, row, sums.data(), to);
  };
  const int64_t whole = b.rows / kTile * kTile;
  const Forms all{b.values.data(), rank, padded.data(), stride};
  for (int64_t row = 0; row < whole; row += kTile) run(all, row, forms.data());
  if (whole < b.rows) {
    std::vector<float> last(static_cast<size_t>(kTile * rank));
    std::copy(b.Row(whole), b.Row(whole) + (b.rows - whole) * rank, last.begin());
    run({last.data(), rank, padded.data(), stride}, 0, forms.data() + whole);
  }
  forms.resize(static_cast<size_t>(b.rows));
  return forms;
}

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};
double ToDouble(float value) { return value; }
double ToDouble(Half value) { return HalfToFloat(value.bits); }
double ToDouble(BFloat16 value) { return BFloat16ToFloat(value.bits); }

// Calls f with the numbers as they lie.
template <typename Function>
std::vector<double> WithNumbers(const TensorView& m, Function f) {
  if (m.dtype == DType::kF32) return f(static_cast<const float*>(m.data));
  if (m.dtype == DType::kF16) return f(static_cast<const Half*>(m.data));
  POLYAD_CHECK(m.dtype == DType::kBF16, "adapter tensor dtype");
  return f(static_cast<const BFloat16*>(m.data));
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

std::vector<double> RowGram(const TensorView& m) {
  return WithNumbers(m, [&](const auto* values) {
    return GramOf(m.rows, m.cols, [&](int64_t begin, int64_t end, double* to) {
      for (int64_t i = 0; i < m.rows; ++i, to += kChunk) {
        const auto* row = values + i * m.cols;
        for (int64_t k = begin; k < end; ++k) to[k - begin] = ToDouble(row[k]);
      }
    });
  });
}

std::vector<double> ColumnGram(const TensorView& m) {
  return WithNumbers(m, [&](const auto* values) {
    return GramOf(m.cols, m.rows, [&](int64_t begin, int64_t end, double* to) {
      for (int64_t k = begin; k < end; ++k, ++to) {
        const auto* row = values + k * m.cols;
        for (int64_t j = 0; j < m.cols; ++j) to[j * kChunk] = ToDouble(row[j]);
      }
    });
  });
}

StatusOr<std::vector<double>> ChangedRowSquares(const LoweringContext& context, SiteRef site,
                                                const Matrix& b, const Matrix& a) {
  if (2 * a.rows > a.cols) return SquaresOfTheSum(context, site, b, a);  // no more work
  POLYAD_ASSIGN_OR_RETURN(const BaseWeights* base, context.Base());
  POLYAD_ASSIGN_OR_RETURN(std::vector<double> squares, base->RowSquares(site, a.cols));
  const TensorView inputs = ViewOf(a);
  POLYAD_ASSIGN_OR_RETURN(const std::vector<float> products, base->Products(site, inputs));
  GiveWay();
  const std::vector<double> forms = QuadraticForms(b, RowGram(inputs));
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
