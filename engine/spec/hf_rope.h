#pragma once

// The rotary part of a config.json: rope_theta with rope_scaling (transformers 4) or
// rope_parameters (transformers 5). Served: default, linear, llama3, dynamic, yarn and longrope
// (transformers 5.19, modeling_rope_utils). Other types, and keys of none of these, are refused by
// name.

#include <cstdint>

#include "engine/base/status.h"
#include "engine/io/json.h"
#include "engine/spec/model_spec.h"

namespace polyad {

// What the rotary part of a configuration depends on and does not say.
struct RopeShape {
  int64_t head_dim = 0;
  int64_t max_position = 0;  // max_position_embeddings, not scaled
  double theta = 10000.0;    // where the configuration names none
};

StatusOr<RopeSpec> ReadHfRope(const JsonFields& config, const RopeShape& shape);

// Whether a configuration says anything about it.
bool NamesRope(const JsonFields& config);

}  // namespace polyad
