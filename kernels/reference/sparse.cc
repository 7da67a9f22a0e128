// sparse:    y[o] += sum over the stored (o, i) of value x[i]
// sign bits: y[o] += sum_g scale[o, g] sum_{i in g} (2 bit[o, i] - 1) x[i]

#include "kernels/reference/delta_terms.h"

namespace polyad::ref {

void AddTerm(const Sparse& op, const TermRow& row) {
  for (size_t o = 0; o < row.y.size(); ++o) {
    double sum = 0.0;
    for (int32_t n = op.row_begin[o]; n < op.row_begin[o + 1]; ++n) {
      const auto at = static_cast<size_t>(n);
      sum += static_cast<double>(op.values[at]) * row.x[static_cast<size_t>(op.columns[at])];
    }
    row.y[o] += row.weight * sum;
  }
}

void AddTerm(const SignBits& op, const TermRow& row) {
  const auto words = static_cast<size_t>((op.in + 31) / 32);
  const auto groups = static_cast<size_t>(op.groups);
  const size_t width = row.x.size() / groups;
  for (size_t o = 0; o < row.y.size(); ++o) {
    for (size_t g = 0; g < groups; ++g) {
      double sum = 0.0;
      for (size_t i = g * width; i < (g + 1) * width; ++i) {
        const uint32_t bit = op.bits[o * words + i / 32] >> (i % 32) & 1u;
        sum += bit != 0 ? row.x[i] : -row.x[i];
      }
      row.y[o] += row.weight * sum * op.scale[op.scale.size() == 1 ? 0 : o * groups + g];
    }
  }
}

}  // namespace polyad::ref
