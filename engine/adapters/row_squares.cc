#include "engine/adapters/row_squares.h"

#include <algorithm>
#include <utility>

#include "engine/adapters/gram.h"
#include "engine/adapters/lowering_ops.h"
#include "kernels/api/give_way.h"
#include "kernels/api/wide_lanes.h"

namespace polyad {
namespace {

// Sixteen rows side by side.
constexpr int64_t kLanes = 16;
typedef float Lanes __attribute__((vector_size(kLanes * sizeof(float)), aligned(4), may_alias));

// What is left of |W|^2 + |B A|^2 where the terms of the sum cancel: below this share, the bf16
// rounding of the products (2^-9 of one term in sqrt(in)) would be felt in the result.
constexpr double kLeastShare = 1.0 / 16;

// What kLanes rows of b add to the rows of W: |b[i] A|^2 and b[i] . (A W[i]).
struct Terms {
  const float* gram;  // A A' over `unit`, [rank, rank], off its diagonal twice
  double unit;        // the largest square in A A', so that nothing in fp32 overflows
  int64_t rank;
  const float* products;  // [rank, stride]
  int64_t stride;
  double* forms;
  double* crosses;
};

// Of rows [row, row + kLanes) of b, turned: [rank, kLanes]. Sums over a rank are fp32: what leaves
// its range is not above kLeastShare either.
__attribute__((always_inline)) inline void TermsLoop(const Terms& of, const float* turned,
                                                     int64_t row) {
  Lanes form = {};
  Lanes cross = {};
  for (int64_t j = 0; j < of.rank; ++j) {
    Lanes sum = {};
    const float* gram = of.gram + j * of.rank;
    for (int64_t k = j; k < of.rank; ++k) {
      sum += gram[k] * *reinterpret_cast<const Lanes*>(turned + k * kLanes);
    }
    const Lanes b = *reinterpret_cast<const Lanes*>(turned + j * kLanes);
    form += b * sum;
    cross += b * *reinterpret_cast<const Lanes*>(of.products + j * of.stride + row);
  }
  for (int64_t i = 0; i < kLanes; ++i) {
    of.forms[row + i] = static_cast<double>(form[i]) * of.unit;
    of.crosses[row + i] = static_cast<double>(cross[i]);
  }
}

#if defined(__x86_64__)
__attribute__((target("avx512f"))) void TermsWide(const Terms& of, const float* turned,
                                                  int64_t row) {
  TermsLoop(of, turned, row);
}
#else
void TermsWide(const Terms& of, const float* turned, int64_t row) { TermsLoop(of, turned, row); }
#endif

struct RowTerms {
  std::vector<double> forms;    // |b[i] A|^2
  std::vector<double> crosses;  // b[i] . (A W[i])
};

// `products` are [rank, out]: A W'.
RowTerms TermsOf(const Matrix& b, const std::vector<double>& gram,
                 const std::vector<float>& products) {
  const int64_t rank = b.cols;
  const int64_t out = b.rows;
  double unit = 0;
  for (int64_t k = 0; k < rank; ++k) unit = std::max(unit, gram[static_cast<size_t>(k * rank + k)]);
  std::vector<float> upper(gram.size());
  for (int64_t i = 0; i < rank && unit > 0; ++i) {
    for (int64_t k = i; k < rank; ++k) {
      const auto at = static_cast<size_t>(i * rank + k);
      upper[at] = static_cast<float>((i == k ? 1 : 2) * (gram[at] / unit));
    }
  }
  const int64_t groups = (out + kLanes - 1) / kLanes;
  RowTerms terms{std::vector<double>(static_cast<size_t>(groups * kLanes)),
                 std::vector<double>(static_cast<size_t>(groups * kLanes))};
  std::vector<float> turned(static_cast<size_t>(rank * kLanes));
  const auto turn = [&](int64_t row, int64_t count) {
    for (int64_t k = 0; k < rank; ++k) {
      for (int64_t i = 0; i < count; ++i) {
        turned[static_cast<size_t>(k * kLanes + i)] = b.At(row + i, k);
      }
    }
  };
  const bool wide = UsesWideLanes();
  const auto run = [&](const Terms& of, int64_t row) {
    if (wide) return TermsWide(of, turned.data(), row);
    TermsLoop(of, turned.data(), row);
  };
  const Terms all{upper.data(),        unit, rank, products.data(), out, terms.forms.data(),
                  terms.crosses.data()};
  const int64_t whole = out / kLanes * kLanes;
  for (int64_t row = 0; row < whole; row += kLanes) {
    turn(row, kLanes);
    run(all, row);
  }
  if (whole < out) {  // the last rows, with rows of zeros
    std::fill(turned.begin(), turned.end(), 0.0f);
    turn(whole, out - whole);
    std::vector<float> last(static_cast<size_t>(rank * kLanes));
    for (int64_t k = 0; k < rank; ++k) {
      std::copy_n(products.begin() + k * out + whole, out - whole, last.begin() + k * kLanes);
    }
    Terms rest = all;
    rest.products = last.data();
    rest.stride = kLanes;
    rest.forms += whole;
    rest.crosses += whole;
    run(rest, 0);
  }
  terms.forms.resize(static_cast<size_t>(out));
  terms.crosses.resize(static_cast<size_t>(out));
  return terms;
}

StatusOr<ChangedRows> SquaresOfTheSum(const LoweringContext& context, SiteRef site, const Matrix& b,
                                      const Matrix& a) {
  POLYAD_ASSIGN_OR_RETURN(Matrix changed, BaseWeight(context, site));
  const Matrix delta = Multiply(b, a);
  ChangedRows squares;
  for (int64_t i = 0; i < changed.rows; ++i) {
    squares.change.push_back(SumOfSquares(delta.Row(i), delta.cols));
    float* row = changed.Row(i);
    for (int64_t j = 0; j < changed.cols; ++j) row[j] += delta.At(i, j);
    squares.sum.push_back(SumOfSquares(row, changed.cols));
  }
  return squares;
}

}  // namespace

StatusOr<ChangedRows> ChangedRowSquares(const LoweringContext& context, SiteRef site,
                                        const Matrix& b, const Matrix& a) {
  if (2 * a.rows > a.cols) return SquaresOfTheSum(context, site, b, a);  // no more work
  POLYAD_ASSIGN_OR_RETURN(const BaseWeights* base, context.Base());
  POLYAD_ASSIGN_OR_RETURN(std::vector<double> squares, base->RowSquares(site, a.cols));
  const TensorView inputs = ViewOf(a);
  POLYAD_ASSIGN_OR_RETURN(const std::vector<float> products, base->Products(site, inputs));
  GiveWay();
  RowTerms rows = TermsOf(b, RowGram(inputs), products);
  GiveWay();
  for (size_t i = 0; i < squares.size(); ++i) {
    const double terms = squares[i] + rows.forms[i];
    squares[i] = terms + 2 * rows.crosses[i];
    if (!(squares[i] > kLeastShare * terms)) return SquaresOfTheSum(context, site, b, a);
  }
  return ChangedRows{std::move(squares), std::move(rows.forms)};
}

}  // namespace polyad
