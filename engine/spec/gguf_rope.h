#pragma once

// The rotary part of a GGUF file, as llama.cpp writes and reads it: rope.* keys under the
// architecture's name, and tensors of factors that divide each pair's frequency (rope_freqs.weight;
// rope_factors_short.weight and rope_factors_long.weight for contexts up to and beyond the original
// length). Served: none, linear, yarn, longrope; other types are refused by name.

#include <string>

#include "engine/base/status.h"
#include "engine/io/gguf.h"
#include "engine/spec/model_spec.h"

namespace polyad {

// Fills spec.rope and raises spec.max_position to what its scaling allows. `architecture` is the
// prefix of the keys ("llama"); head_dim and max_position are read already.
Status ReadGgufRope(const GgufFile& file, const std::string& architecture, ModelSpec& spec);

}  // namespace polyad
