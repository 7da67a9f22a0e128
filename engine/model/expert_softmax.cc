#include "engine/model/expert_softmax.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/base/check.h"

namespace polyad {

std::span<const int64_t> LargestOf(std::span<const float> values, int64_t k, ExpertList& list) {
  POLYAD_CHECK(values.size() <= list.size() && k >= 0 && k <= std::ssize(values),
               "as many experts as there are");
  const auto all = std::span(list).first(values.size());
  std::iota(all.begin(), all.end(), int64_t{0});
  std::partial_sort(all.begin(), all.begin() + k, all.end(), [&](int64_t a, int64_t b) {
    const float of_a = values[static_cast<size_t>(a)];
    const float of_b = values[static_cast<size_t>(b)];
    return of_a > of_b || (of_a == of_b && a < b);
  });
  return all.first(static_cast<size_t>(k));
}

void SoftmaxOver(std::span<const int64_t> chosen, float temperature, std::span<float> values) {
  POLYAD_CHECK(values.size() <= static_cast<size_t>(kMaxExperts), "as many experts as there are");
  std::array<double, static_cast<size_t>(kMaxExperts)> weights;
  double largest = -INFINITY;
  for (const int64_t expert : chosen) {
    largest = std::max(largest, static_cast<double>(values[static_cast<size_t>(expert)]));
  }
  double sum = 0;
  for (size_t i = 0; i < chosen.size(); ++i) {
    const double value = values[static_cast<size_t>(chosen[i])];
    sum += (weights[i] = std::exp((value - largest) / static_cast<double>(temperature)));
  }
  std::fill(values.begin(), values.end(), 0.0f);
  for (size_t i = 0; i < chosen.size(); ++i) {
    values[static_cast<size_t>(chosen[i])] = static_cast<float>(weights[i] / sum);
  }
}

}  // namespace polyad
