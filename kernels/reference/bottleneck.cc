// y[o] += scale[o] (sum_w U[o, w] act(sum_i D[w, i] norm(x)[i] + d[w]) + u[o])
// norm(x) = (x - mean) / sqrt(var + eps) * weight + bias (Ba, Kiros and Hinton 2016)

#include <cmath>

#include "kernels/reference/act.h"
#include "kernels/reference/delta_terms.h"
#include "kernels/reference/element.h"

namespace polyad::ref {
namespace {

std::vector<double> Normed(const LayerNormWeights& norm, const std::vector<double>& x) {
  if (norm.weight.empty()) return x;
  const auto count = static_cast<double>(x.size());
  double mean = 0.0;
  for (const double value : x) mean += value / count;
  double variance = 0.0;
  for (const double value : x) variance += (value - mean) * (value - mean) / count;
  const double inverse = 1.0 / std::sqrt(variance + static_cast<double>(norm.eps));
  std::vector<double> y(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    y[i] = (x[i] - mean) * inverse * norm.weight[i] + (norm.bias.empty() ? 0.0f : norm.bias[i]);
  }
  return y;
}

}  // namespace

void AddTerm(const Bottleneck& op, const TermRow& row) {
  const std::vector<double> x = Normed(op.norm, row.x);
  std::vector<double> hidden(static_cast<size_t>(op.down.rows));
  for (size_t w = 0; w < hidden.size(); ++w) {
    double sum = op.down_bias.empty() ? 0.0 : op.down_bias[w];
    for (size_t i = 0; i < x.size(); ++i) {
      sum += ReadElement(op.down, static_cast<int64_t>(w), static_cast<int64_t>(i)) * x[i];
    }
    hidden[w] = Act(op.activation, sum);
  }
  for (size_t o = 0; o < row.y.size(); ++o) {
    double sum = op.up_bias.empty() ? 0.0 : op.up_bias[o];
    for (size_t w = 0; w < hidden.size(); ++w) {
      sum += ReadElement(op.up, static_cast<int64_t>(o), static_cast<int64_t>(w)) * hidden[w];
    }
    const double scale = op.scale.empty() ? 1.0 : op.scale[op.scale.size() == 1 ? 0 : o];
    row.y[o] += row.weight * scale * sum;
  }
}

}  // namespace polyad::ref
