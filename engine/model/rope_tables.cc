#include "engine/model/rope_tables.h"

#include <cmath>

namespace polyad {

RopeTables::RopeTables(const ModelSpec& spec, int64_t max_position)
    : rotary_dim_(spec.rope.rotary_dim) {
  if (rotary_dim_ == 0) return;
  const std::vector<float> frequencies = RopeFrequencies(spec.rope);
  const size_t pairs = frequencies.size();
  cos_.resize(static_cast<size_t>(max_position) * pairs);
  sin_.resize(cos_.size());
  for (size_t position = 0; position < static_cast<size_t>(max_position); ++position) {
    for (size_t pair = 0; pair < pairs; ++pair) {
      const float angle =
          static_cast<float>(position) * frequencies[pair];  // fp32, as the original
      cos_[position * pairs + pair] = static_cast<float>(std::cos(static_cast<double>(angle)));
      sin_[position * pairs + pair] = static_cast<float>(std::sin(static_cast<double>(angle)));
    }
  }
}

RopeTable RopeTables::view() const { return {cos_.data(), sin_.data(), rotary_dim_}; }

}  // namespace polyad
