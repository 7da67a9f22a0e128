#include "engine/adapters/gated_prefix.h"

#include <cstring>

namespace polyad {

StatusOr<GatedPrefix> PackGatedPrefix(const GatedPrefixTensors& tensors, const ModelSpec& spec,
                                      Backend& backend) {
  const int64_t width = 2 * spec.KvWidth();
  const auto got = static_cast<int64_t>(tensors.kv.size());
  if (tensors.layer < 0 || tensors.layer >= spec.num_layers || tensors.num_keys < 1 ||
      got != tensors.num_keys * width) {
    return InvalidArgument("gated prefix of layer %d: expected %d numbers for %d keys, got %d",
                           tensors.layer, tensors.num_keys * width, tensors.num_keys, got);
  }
  if (static_cast<int64_t>(tensors.gate.size()) != spec.num_heads) {
    return InvalidArgument("gated prefix of layer %d: expected %d gates, got %d", tensors.layer,
                           spec.num_heads, tensors.gate.size());
  }
  if (tensors.after_projection && spec.QueryWidth() != spec.hidden_size) {
    return InvalidArgument("gated prefix of layer %d: expected heads of %d numbers, got %d",
                           tensors.layer, spec.hidden_size, spec.QueryWidth());
  }
  GatedPrefix prefix;
  prefix.layer = tensors.layer;
  prefix.gate = tensors.gate;
  prefix.after_projection = tensors.after_projection;
  POLYAD_ASSIGN_OR_RETURN(prefix.memory,
                          backend.Allocate(got * static_cast<int64_t>(sizeof(float))));
  prefix.kv = {static_cast<float*>(prefix.memory.get()), tensors.num_keys, width, width};
  std::memcpy(prefix.kv.data, tensors.kv.data(), tensors.kv.size() * sizeof(float));
  backend.HostWrote(prefix.kv);
  return prefix;
}

}  // namespace polyad
