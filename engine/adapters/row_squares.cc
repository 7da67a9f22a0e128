#include "engine/adapters/row_squares.h"

#include <algorithm>

#include "engine/adapters/gram.h"
#include "engine/adapters/lowering_ops.h"
#include "kernels/api/give_way.h"

namespace polyad {
namespace {

// Eight sums side by side.
constexpr int64_t kLanes = 8;
typedef double Lanes __attribute__((vector_size(kLanes * sizeof(double)), aligned(8), may_alias));
constexpr int64_t kTile = 4;     // rows whose sums stay in registers,
constexpr int64_t kVectors = 2;  // so many of them for each row

// What is left of |W|^2 + |B A|^2 where the terms of the sum cancel: below this share, the bf16
// rounding of the products (2^-9 of one term in sqrt(in)) would be felt in the result.
constexpr double kLeastShare = 1.0 / 16;

// The rows of b [rows, rank] times a gram whose columns are padded with zeros to `stride`, a
// multiple of kVectors * kLanes.
struct Forms {
  const float* b;
  int64_t rank;
  const double* gram;  // [rank, stride]
  int64_t stride;
};

// forms[i] = b[i] gram b[i]' for kTile rows from `row`. `wide` [kTile][stride] is for those rows in
// fp64; what is past the rank in it is zero.
__attribute__((always_inline)) inline void FormsLoop(const Forms& of, int64_t row, double* wide,
                                                     double* forms) {
  const float* b = of.b + row * of.rank;
  for (int64_t i = 0; i < kTile; ++i) {
    for (int64_t k = 0; k < of.rank; ++k) wide[i * of.stride + k] = b[i * of.rank + k];
  }
  Lanes sums[kTile] = {};
  for (int64_t j = 0; j < of.stride; j += kVectors * kLanes) {
    Lanes lanes[kTile][kVectors] = {};
    for (int64_t k = 0; k < of.rank; ++k) {
      const Lanes* from = reinterpret_cast<const Lanes*>(of.gram + k * of.stride + j);
      for (int64_t i = 0; i < kTile; ++i) {
        const double factor = wide[i * of.stride + k];
        for (int64_t v = 0; v < kVectors; ++v) lanes[i][v] += factor * from[v];
      }
    }
    for (int64_t i = 0; i < kTile; ++i) {
      const Lanes* by = reinterpret_cast<const Lanes*>(wide + i * of.stride + j);
      for (int64_t v = 0; v < kVectors; ++v) sums[i] += lanes[i][v] * by[v];
    }
  }
  for (int64_t i = 0; i < kTile; ++i) {
    forms[row + i] = 0;
    for (int64_t lane = 0; lane < kLanes; ++lane) forms[row + i] += sums[i][lane];
  }
}

#if defined(__x86_64__)
__attribute__((target("avx512f"))) void FormsWide(const Forms& of, int64_t row, double* wide,
                                                  double* forms) {
  FormsLoop(of, row, wide, forms);
}
const bool kWide = __builtin_cpu_supports("avx512f") != 0;
#else
void FormsWide(const Forms& of, int64_t row, double* wide, double* forms) {
  FormsLoop(of, row, wide, forms);
}
constexpr bool kWide = false;
#endif

// b[i] gram b[i]' for each row of b. Rows go by fours, the last ones with rows of zeros.
std::vector<double> QuadraticForms(const Matrix& b, const std::vector<double>& gram) {
  const int64_t rank = b.cols;
  const int64_t whole_lanes = kVectors * kLanes;
  const int64_t stride = (rank + whole_lanes - 1) / whole_lanes * whole_lanes;
  std::vector<double> padded(static_cast<size_t>(rank * stride));
  for (int64_t k = 0; k < rank; ++k) {
    std::copy_n(gram.begin() + k * rank, rank, padded.begin() + k * stride);
  }
  std::vector<double> wide(static_cast<size_t>(kTile * stride));
  std::vector<double> forms(static_cast<size_t>(b.rows + kTile));
  const auto run = [&](const Forms& of, int64_t row, double* to) {
    if (kWide) return FormsWide(of, row, wide.data(), to);
    FormsLoop(of, row, wide.data(), to);
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
