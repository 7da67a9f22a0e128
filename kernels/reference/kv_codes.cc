#include "kernels/reference/kv_codes.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/reference/element.h"

namespace polyad::ref {
namespace {

// The nearest bf16 number that is not above (below) x.
float Bf16Down(float x) {
  if (!std::isfinite(x)) return std::numeric_limits<float>::quiet_NaN();
  const double nearest = Bf16ToDouble(ToBf16(x));
  if (nearest <= x) return static_cast<float>(nearest);
  // One step towards minus infinity: bf16 numbers of one sign are ordered as their bits.
  const uint16_t bits = ToBf16(x);
  return static_cast<float>(Bf16ToDouble(static_cast<uint16_t>(x < 0 ? bits + 1 : bits - 1)));
}

float Bf16Up(float x) { return -Bf16Down(-x); }

CodedGroup EncodeGroup(const std::vector<float>& x, int64_t top) {
  CodedGroup group;
  group.codes.assign(x.size(), 0);
  const bool finite = std::all_of(x.begin(), x.end(), [](float v) { return std::isfinite(v); });
  if (!finite) {
    group.scale = group.low = std::numeric_limits<float>::quiet_NaN();
    return group;
  }
  group.low = Bf16Down(*std::min_element(x.begin(), x.end()));
  const float range = *std::max_element(x.begin(), x.end()) - group.low;
  const float exact = range / static_cast<float>(top);
  if (exact < kLeastKvScale) return group;
  group.scale = Bf16Up(exact);
  const float inverse = 1.0f / group.scale;
  for (size_t i = 0; i < x.size(); ++i) {
    const float code = std::nearbyint((x[i] - group.low) * inverse);
    group.codes[i] = static_cast<uint8_t>(std::min(code, static_cast<float>(top)));
  }
  return group;
}

// x <- H x
template <typename Number>
void Butterflies(Number* x, size_t count) {
  for (size_t distance = count / 2; distance >= 1; distance /= 2) {
    for (size_t i = 0; i < count; ++i) {
      if ((i & distance) != 0) continue;
      const Number sum = x[i] + x[i + distance];
      x[i + distance] = x[i] - x[i + distance];
      x[i] = sum;
    }
  }
}

}  // namespace

std::vector<CodedGroup> EncodeHead(KvFormat format, KvPart part, const std::vector<float>& head) {
  std::vector<float> padded = head;
  if (IsTurned(format)) padded.resize((head.size() + 31) / 32 * 32);
  const auto group_size = static_cast<size_t>(GroupSizeOf(format, part));
  std::vector<CodedGroup> groups;
  for (size_t first = 0; first < padded.size(); first += group_size) {
    const size_t count = std::min(group_size, padded.size() - first);
    const auto begin = padded.begin() + static_cast<int64_t>(first);
    std::vector<float> group(begin, begin + static_cast<int64_t>(count));
    if (IsTurned(format)) {
      Butterflies(group.data(), count);
      for (float& value : group) value *= 0.125f;
    }
    groups.push_back(EncodeGroup(group, TopCodeOf(format, part)));
  }
  return groups;
}

std::vector<double> StoredHead(KvFormat format, KvPart part, const std::vector<float>& head) {
  std::vector<double> stored;
  if (!IsCoded(format)) {
    for (const float value : head) {
      stored.push_back(format == KvFormat::kBF16 ? Bf16ToDouble(ToBf16(value)) : value);
    }
    return stored;
  }
  for (const CodedGroup& group : EncodeHead(format, part, head)) {
    std::vector<double> values;
    for (const uint8_t code : group.codes) {
      values.push_back(static_cast<double>(group.scale) * code + group.low);
    }
    if (IsTurned(format)) {
      Butterflies(values.data(), values.size());
      for (double& value : values) value *= 8.0 / static_cast<double>(values.size());
    }
    stored.insert(stored.end(), values.begin(), values.end());
  }
  stored.resize(head.size());
  return stored;
}

}  // namespace polyad::ref
