#include "engine/model/mixture.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <span>

#include "engine/base/check.h"

namespace polyad {
namespace {

using Experts = std::array<int64_t, static_cast<size_t>(kMaxExperts)>;

// The rule's top_k experts, the largest scores first; of equal ones the lower expert first.
std::span<const int64_t> Chosen(const MixtureRule& rule, const float* scores, Experts& experts) {
  const auto all = std::span(experts).first(static_cast<size_t>(rule.num_experts));
  const auto chosen = all.first(static_cast<size_t>(rule.top_k));
  std::iota(all.begin(), all.end(), int64_t{0});
  const auto value = [&](int64_t expert) {
    return rule.absolute ? std::abs(scores[expert]) : scores[expert];
  };
  std::partial_sort(all.begin(), all.begin() + rule.top_k, all.end(), [&](int64_t a, int64_t b) {
    return value(a) > value(b) || (value(a) == value(b) && a < b);
  });
  return chosen;
}

// The mean in each one's place; its bits depend on the numbers and their order alone.
void SetToMean(std::span<float> values) {
  double sum = 0;
  for (const float value : values) sum += static_cast<double>(value);
  std::fill(values.begin(), values.end(),
            static_cast<float>(sum / static_cast<double>(values.size())));
}

}  // namespace

std::vector<float> MixtureCoefficients(const MixtureRule& rule, FloatRows scores) {
  POLYAD_CHECK(scores.cols == rule.num_experts && rule.top_k >= 1 &&
                   rule.top_k <= rule.num_experts && rule.num_experts <= kMaxExperts,
               "a mixture's scores");
  std::vector<float> coefficients(static_cast<size_t>(scores.rows * scores.cols));
  Experts experts;
  for (int64_t row = 0; row < scores.rows; ++row) {
    const float* own = scores.Row(row);
    const std::span<const int64_t> chosen = Chosen(rule, own, experts);
    const auto weight = [&](int64_t expert) {
      const auto of = [&](int64_t at) {
        return static_cast<double>(rule.absolute ? std::abs(own[at]) : own[at]);
      };
      return std::exp((of(expert) - of(chosen[0])) / static_cast<double>(rule.temperature));
    };
    double sum = 0;
    for (const int64_t expert : chosen) sum += weight(expert);
    for (const int64_t expert : chosen) {
      coefficients[static_cast<size_t>(expert * scores.rows + row)] =
          static_cast<float>(weight(expert) / sum);
    }
  }
  for (int64_t expert = 0; rule.over_segment && expert < rule.num_experts; ++expert) {
    SetToMean(
        std::span(coefficients)
            .subspan(static_cast<size_t>(expert * scores.rows), static_cast<size_t>(scores.rows)));
  }
  return coefficients;
}

}  // namespace polyad
