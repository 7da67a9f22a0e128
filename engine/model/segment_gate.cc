#include "engine/model/segment_gate.h"

#include <cmath>
#include <vector>

#include "engine/base/check.h"
#include "engine/io/float_bits.h"
#include "kernels/api/dot.h"

namespace polyad {
namespace {

// weight . x[row] + bias; `wide` is room for a widened row.
float LogitOf(std::span<const float> weight, float bias, ActivationRows x, int64_t row,
              std::vector<float>& wide) {
  const float* values = static_cast<const float*>(x.data) + row * x.stride;
  if (x.dtype == DType::kBF16) {
    const uint16_t* bits = static_cast<const uint16_t*>(x.data) + row * x.stride;
    for (size_t i = 0; i < wide.size(); ++i) wide[i] = BFloat16ToFloat(bits[i]);
    values = wide.data();
  }
  return Dot(weight.data(), values, x.cols) + bias;
}

double Sigmoid(float x) { return 1.0 / (1.0 + std::exp(-static_cast<double>(x))); }

}  // namespace

float MeanGate(std::span<const float> weight, float bias, ActivationRows x) {
  POLYAD_CHECK(static_cast<int64_t>(weight.size()) == x.cols && x.rows > 0, "a gate's shape");
  std::vector<float> wide(weight.size());
  double sum = 0.0;
  for (int64_t row = 0; row < x.rows; ++row) {
    sum += Sigmoid(LogitOf(weight, bias, x, row, wide));
  }
  return static_cast<float>(sum / static_cast<double>(x.rows));
}

void RouteRows(const TokenRouter& router, ActivationRows n, FloatRows o) {
  const std::span<const float> weight = router.weight;
  POLYAD_CHECK(
      n.data != nullptr && static_cast<int64_t>(weight.size()) == n.cols && n.rows == o.rows,
      "a router's shape");
  std::vector<float> wide(weight.size());
  for (int64_t row = 0; row < o.rows; ++row) {
    const float score = LogitOf(weight, 0.0f, n, row, wide);
    const float factor = score >= router.threshold ? static_cast<float>(Sigmoid(score)) : 0.0f;
    ScaleBy(factor, o.Slice(row, row + 1));
  }
}

void Sigmoid(std::span<const float> bias, FloatRows scores) {
  POLYAD_CHECK(static_cast<int64_t>(bias.size()) == scores.cols, "a bias of every score");
  for (int64_t row = 0; row < scores.rows; ++row) {
    float* own = scores.Row(row);
    for (size_t i = 0; i < bias.size(); ++i) own[i] = static_cast<float>(Sigmoid(own[i] + bias[i]));
  }
}

void ScaleBy(float factor, FloatRows rows) {
  for (int64_t row = 0; row < rows.rows; ++row) {
    for (int64_t i = 0; i < rows.cols; ++i) rows.Row(row)[i] *= factor;
  }
}

}  // namespace polyad
