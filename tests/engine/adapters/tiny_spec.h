#pragma once

// The base that unit tests of lowerings name: two layers of grouped-query attention, 32 wide, no
// weights. Test-only.

#include "engine/spec/model_spec.h"

namespace polyad {

inline ModelSpec TinySpec() {
  ModelSpec spec;
  spec.architecture = Architecture::kLlama;
  spec.hidden_size = 32;
  spec.num_layers = 2;
  spec.num_heads = 4;
  spec.num_kv_heads = 2;
  spec.head_dim = 8;
  spec.intermediate_size = 48;
  spec.vocab_size = 100;
  spec.max_position = 64;
  spec.sliding_window = {0, 0};
  return spec;
}

}  // namespace polyad
