#pragma once

// Rotary position tables, cos and sin [max_position, rotary_dim / 2], in fp32 the way transformers
// computes them (modeling_rope_utils: default, linear and llama3 scaling; explicit GGUF frequency
// factors divide the frequencies).

#include <cstdint>
#include <vector>

#include "engine/spec/model_spec.h"
#include "kernels/api/backend.h"

namespace polyad {

class RopeTables {
 public:
  RopeTables() = default;
  RopeTables(const ModelSpec& spec, int64_t max_position);
  // rotary_dim 0 (no rotation) where the model has learned positions.
  RopeTable view() const;

 private:
  int64_t rotary_dim_ = 0;
  std::vector<float> cos_;
  std::vector<float> sin_;
};

}  // namespace polyad
