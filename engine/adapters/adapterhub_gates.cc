#include "engine/adapters/adapterhub_gates.h"

#include <string>

namespace polyad {

StatusOr<std::vector<SegmentGate>> ReadGates(HubTensors& tensors, const HubPlace& place,
                                             std::pair<int64_t, int64_t> shape) {
  const auto [count, width] = shape;
  HubPlace at = place;
  const std::string prefix = place.leaf.empty() ? "" : place.leaf + ".";
  at.leaf = prefix + "weight";
  POLYAD_ASSIGN_OR_RETURN(const std::vector<float> weight, tensors.Take(at, {count, width}));
  at.leaf = prefix + "bias";
  POLYAD_ASSIGN_OR_RETURN(const std::vector<float> bias, tensors.Take(at, {count}));
  std::vector<SegmentGate> gates;
  for (int64_t i = 0; i < count; ++i) {
    const auto begin = weight.begin() + i * width;
    gates.push_back({{begin, begin + width}, bias[static_cast<size_t>(i)]});
  }
  return gates;
}

}  // namespace polyad
