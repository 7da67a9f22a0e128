#include "engine/model/mixture.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "engine/base/check.h"
#include "engine/model/expert_softmax.h"

namespace polyad {
namespace {

// The mean in each one's place; its bits depend on the numbers and their order alone.
void SetToMean(std::span<float> values) {
  double sum = 0;
  for (const float value : values) sum += static_cast<double>(value);
  std::fill(values.begin(), values.end(),
            static_cast<float>(sum / static_cast<double>(values.size())));
}

}  // namespace

void MixtureCoefficients(const MixtureRule& rule, FloatRows scores, std::span<float> coefficients) {
  POLYAD_CHECK(scores.cols == rule.num_experts && rule.top_k >= 1 &&
                   rule.top_k <= rule.num_experts && rule.num_experts <= kMaxExperts &&
                   std::ssize(coefficients) == scores.rows * scores.cols,
               "a mixture's scores");
  ExpertList list;
  std::array<float, static_cast<size_t>(kMaxExperts)> room;
  const std::span<float> own = std::span(room).first(static_cast<size_t>(rule.num_experts));
  for (int64_t row = 0; row < scores.rows; ++row) {
    std::transform(scores.Row(row), scores.Row(row) + scores.cols, own.begin(),
                   [&](float score) { return rule.absolute ? std::abs(score) : score; });
    SoftmaxOver(LargestOf(own, rule.top_k, list), rule.temperature, own);
    for (size_t expert = 0; expert < own.size(); ++expert) {
      coefficients[expert * static_cast<size_t>(scores.rows) + static_cast<size_t>(row)] =
          own[expert];
    }
  }
  for (int64_t expert = 0; rule.over_segment && expert < rule.num_experts; ++expert) {
    SetToMean(coefficients.subspan(static_cast<size_t>(expert * scores.rows),
                                   static_cast<size_t>(scores.rows)));
  }
}

}  // namespace polyad
