// low rank:  y[o] += outer[o] scale sum_r B[o, r] inner[r] (sum_i A[r, i] x[i])
// dense:     y[o] += scale sum_i D[o, i] x[i];  dense rows: y[rows[n]] += sum_i V[n, i] x[i]
// kronecker: y[a k + b] += scale sum_c sum_d C[a, c] D[b, d] x[c n + d]
// bias:      y[o] += b[o]

#include "kernels/reference/delta_terms.h"
#include "kernels/reference/element.h"

namespace polyad::ref {
namespace {

double Dot(const TensorView& matrix, int64_t row, const std::vector<double>& x) {
  double sum = 0.0;
  for (int64_t i = 0; i < matrix.cols; ++i) {
    sum += ReadElement(matrix, row, i) * x[static_cast<size_t>(i)];
  }
  return sum;
}

}  // namespace

void AddTerm(const LowRank& op, const TermRow& row) {
  std::vector<double> hidden(static_cast<size_t>(op.a.rows));
  for (size_t r = 0; r < hidden.size(); ++r) {
    hidden[r] = Dot(op.a, static_cast<int64_t>(r), row.x) * (op.inner.empty() ? 1.0 : op.inner[r]);
  }
  for (size_t o = 0; o < row.y.size(); ++o) {
    const double outer = op.outer.empty() ? 1.0 : op.outer[o];
    row.y[o] += row.weight * outer * op.scale * Dot(op.b, static_cast<int64_t>(o), hidden);
  }
}

void AddTerm(const Dense& op, const TermRow& row) {
  for (size_t o = 0; o < row.y.size(); ++o) {
    row.y[o] += row.weight * op.scale * Dot(op.delta, static_cast<int64_t>(o), row.x);
  }
}

void AddTerm(const DenseRows& op, const TermRow& row) {
  for (size_t n = 0; n < op.rows.size(); ++n) {
    row.y[static_cast<size_t>(op.rows[n])] +=
        row.weight * Dot(op.values, static_cast<int64_t>(n), row.x);
  }
}

void AddTerm(const Kronecker& op, const TermRow& row) {
  for (int64_t a = 0; a < op.c.rows; ++a) {
    std::vector<double> mixed(static_cast<size_t>(op.d.cols), 0.0);
    for (int64_t c = 0; c < op.c.cols; ++c) {
      const double weight = ReadElement(op.c, a, c);
      for (int64_t d = 0; d < op.d.cols; ++d) {
        mixed[static_cast<size_t>(d)] += weight * row.x[static_cast<size_t>(c * op.d.cols + d)];
      }
    }
    for (int64_t b = 0; b < op.d.rows; ++b) {
      row.y[static_cast<size_t>(a * op.d.rows + b)] += row.weight * op.scale * Dot(op.d, b, mixed);
    }
  }
}

void AddTerm(const Bias& op, const TermRow& row) {
  for (size_t o = 0; o < row.y.size(); ++o) row.y[o] += row.weight * op.values[o];
}

}  // namespace polyad::ref
