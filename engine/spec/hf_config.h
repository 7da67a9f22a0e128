#pragma once

// A Hugging Face config.json as a ModelSpec, both as transformers 4 writes it (rope_theta,
// rope_scaling) and as 5 does (rope_parameters). Absent keys take transformers' own defaults (5.19
// configuration classes). Whatever would change the maths and is not served refuses the model with
// the key and its value; nothing is ever executed from the directory. INVALID_ARGUMENT: malformed
// or contradictory. UNIMPLEMENTED: known but not served. Pure functions.

#include <string>

#include "engine/base/status.h"
#include "engine/spec/model_spec.h"

namespace polyad {

// `generation_config` may be empty: the directory has none.
StatusOr<ModelSpec> SpecFromHfConfig(const std::string& config,
                                     const std::string& generation_config);

}  // namespace polyad
