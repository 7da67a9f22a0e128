#include "kernels/api/grouped_rows.h"

#include <cmath>
#include <limits>

namespace polyad {

float GroupedRows::ScaleOf(size_t at) const {
  if (groups_per_super == 0) return scales[at];
  const float super = scales[at / static_cast<size_t>(groups_per_super)];
  return super * static_cast<float>(scale_factors[at]);
}

float GroupedRows::MinimumOf(size_t at) const {
  if (groups_per_super == 0) return minima[at];
  const float super = minima[at / static_cast<size_t>(groups_per_super)];
  return super * static_cast<float>(minimum_factors[at]);
}

GroupedRows MakeGroupedRows(int64_t rows, int64_t cols, int64_t group) {
  GroupedRows made;
  made.rows = rows;
  made.cols = cols;
  made.group = group;
  made.num_groups = (cols + group - 1) / group;
  made.codes.resize(static_cast<size_t>(rows * cols));
  made.scales.resize(static_cast<size_t>(rows * made.num_groups));
  return made;
}

float Float8ToFloat(uint8_t code) {
  const int exponent = (code >> 3) & 15;
  const int mantissa = code & 7;
  if (exponent == 15 && mantissa == 7) return std::numeric_limits<float>::quiet_NaN();
  const float magnitude = exponent == 0
                              ? std::ldexp(static_cast<float>(mantissa), -9)
                              : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
  return (code & 0x80) != 0 ? -magnitude : magnitude;
}

void DequantizeRow(const GroupedRows& weight, int64_t row, float* out) {
  const uint8_t* codes = weight.codes.data() + row * weight.cols;
  for (int64_t col = 0; col < weight.cols; ++col) {
    const auto group = static_cast<size_t>(row * weight.num_groups + weight.GroupOf(col));
    const float scale = weight.ScaleOf(group);
    switch (weight.kind) {
      case CodeKind::kLevels:
        out[col] = scale * weight.levels[codes[col] & 15];
        break;
      case CodeKind::kFloat8:
        out[col] = scale * Float8ToFloat(codes[col]);
        break;
      case CodeKind::kInteger: {
        const float zero = weight.zeros.empty() ? weight.zero : weight.zeros[group];
        const float value = scale * (static_cast<float>(codes[col]) - zero);
        out[col] = weight.minima.empty() ? value : value + weight.MinimumOf(group);
        break;
      }
    }
  }
}

}  // namespace polyad
