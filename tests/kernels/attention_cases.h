#pragma once

// Op cases of rotation, K/V storage and attention over scattered blocks.

#include <utility>

#include "tests/kernels/op_cases.h"

namespace polyad::test {

struct AttentionShape {
  int64_t num_heads = 1;
  int64_t num_kv_heads = 1;
  int64_t head_dim = 16;
  std::vector<std::pair<int64_t, int64_t>> contexts;  // (context_end, rows of this step)
  int64_t rotary_dim = 0;
  int64_t window = 0;
  bool head_norms = false;
  int64_t num_stored = 0;             // first keys and values of each context, stored as they are
  int64_t first_key = 0;              // keys before it are hidden
  int64_t num_gates = 0;              // first keys that every row has gates of
  KvFormat format = KvFormat::kAuto;  // on a backend in mode f32: kAuto
  int64_t num_layers =
      2;  // each Run takes the next one: with many, the pages come from beyond the caches
};

// The attention outputs; the context is rotated and stored once, beforehand.
OpCase AttentionCase(const AttentionShape& shape);

// The step's q rows after rotation, k and v stored.
OpCase RotateCase(const AttentionShape& shape);

// A second softmax over an adapter's own keys, added to what the first gave.
OpCase GatedPrefixCase(const AttentionShape& shape, int64_t rows, int64_t num_keys);

}  // namespace polyad::test
