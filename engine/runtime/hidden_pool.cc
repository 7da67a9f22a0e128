#include "engine/runtime/hidden_pool.h"

#include <algorithm>
#include <cmath>

#include "engine/base/check.h"

namespace polyad {

void HiddenPool::Add(FloatRows rows) {
  if (rows.rows == 0) return;
  sums_.resize(static_cast<size_t>(rows.cols), 0.0);
  for (int64_t row = 0; row < rows.rows; ++row) {
    const float* values = rows.Row(row);
    for (size_t i = 0; i < sums_.size(); ++i) sums_[i] += double{values[i]};
  }
  num_rows_ += rows.rows;
}

StatusOr<std::vector<float>> HiddenPool::Finish(const EmbeddingParams& params) const {
  POLYAD_CHECK(num_rows_ > 0, "a prompt has a token");
  const auto wanted = static_cast<size_t>(params.dimensions);
  const size_t size = wanted == 0 ? sums_.size() : std::min(wanted, sums_.size());
  std::vector<double> pooled(sums_.begin(), sums_.begin() + static_cast<std::ptrdiff_t>(size));
  double square = 0;
  for (double& value : pooled) {
    value /= static_cast<double>(num_rows_);
    square += value * value;
  }
  if (!std::isfinite(square)) {
    return Internal("embedding: expected finite values, got a length of %f", std::sqrt(square));
  }
  constexpr double kShortest = 1e-12;
  const double scale = params.normalize ? 1.0 / std::max(std::sqrt(square), kShortest) : 1.0;
  std::vector<float> out;
  out.reserve(size);
  for (const double value : pooled) out.push_back(static_cast<float>(value * scale));
  return out;
}

}  // namespace polyad
