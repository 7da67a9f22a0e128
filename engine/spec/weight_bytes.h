#pragma once

// What a base's packed weights occupy, by precision. A plain value.

#include "kernels/api/precision_bytes.h"

namespace polyad {

struct WeightBytes {
  PrecisionBytes embeddings;  // tables of tokens and positions, and a head that is not tied to them
  PrecisionBytes layers;      // all else: matrices, biases, norms

  int64_t total() const { return embeddings.total() + layers.total(); }
};

}  // namespace polyad
