#pragma once

// The rotary part of a config.json: rope_theta with rope_scaling (transformers 4) or
// rope_parameters (transformers 5). Served: default, linear, llama3. Others are refused by name
// (transformers 5.19 modeling_rope_utils lists them).

#include <cstdint>

#include "engine/base/status.h"
#include "engine/io/json.h"
#include "engine/spec/model_spec.h"

namespace polyad {

StatusOr<RopeSpec> ReadHfRope(const JsonFields& config, int64_t head_dim, int64_t max_position);

}  // namespace polyad
