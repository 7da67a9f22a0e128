#include "engine/model/segment_gate.h"

#include <cmath>
#include <vector>

#include "engine/base/check.h"
#include "engine/io/float_bits.h"
#include "kernels/api/dot.h"

namespace polyad {

float MeanGate(std::span<const float> weight, float bias, ActivationRows x) {
  POLYAD_CHECK(static_cast<int64_t>(weight.size()) == x.cols && x.rows > 0, "a gate's shape");
  std::vector<float> wide(weight.size());
  double sum = 0.0;
  for (int64_t row = 0; row < x.rows; ++row) {
    const float* values = static_cast<const float*>(x.data) + row * x.stride;
    if (x.dtype == DType::kBF16) {
      const uint16_t* bits = static_cast<const uint16_t*>(x.data) + row * x.stride;
      for (size_t i = 0; i < wide.size(); ++i) wide[i] = BFloat16ToFloat(bits[i]);
      values = wide.data();
    }
    const float logit = Dot(weight.data(), values, x.cols) + bias;
    sum += 1.0 / (1.0 + std::exp(-static_cast<double>(logit)));
  }
  return static_cast<float>(sum / static_cast<double>(x.rows));
}

void ScaleBy(float factor, FloatRows rows) {
  for (int64_t row = 0; row < rows.rows; ++row) {
    for (int64_t i = 0; i < rows.cols; ++i) rows.Row(row)[i] *= factor;
  }
}

}  // namespace polyad
