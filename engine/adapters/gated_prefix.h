#pragma once

// Keys and values that one layer's queries attend to beside their own context, in a softmax of its
// own times a gate for each head (LLaMA-Adapter). The result joins the attention's heads before the
// output projection, or the layer's stream after it. Owned by an AdapterVersion; compositions share
// the memory. Formats: zoo section 5.7.

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/base/status.h"
#include "engine/spec/model_spec.h"
#include "kernels/api/backend.h"

namespace polyad {

// What a family lowers to.
struct GatedPrefixTensors {
  int64_t layer = 0;
  int64_t num_keys = 0;
  std::vector<float> kv;          // [num_keys, 2 * kv width]: a key's heads, then its value's
  std::vector<float> gate;        // [num_heads]
  bool after_projection = false;  // needs heads * head_dim == hidden
};

// The same in the backend's memory.
struct GatedPrefix {
  int64_t layer = 0;
  FloatRows kv;
  std::vector<float> gate;
  bool after_projection = false;
  std::shared_ptr<void> memory;
};

// INVALID_ARGUMENT where a size is not the model's.
StatusOr<GatedPrefix> PackGatedPrefix(const GatedPrefixTensors& tensors, const ModelSpec& spec,
                                      Backend& backend);

}  // namespace polyad
