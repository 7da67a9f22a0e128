#pragma once

// A model's weights after loading: matrices packed for the backend (q|k|v and gate|up fused along
// their outputs), the small vectors in fp32. Loaded once, const and shared by every step
// afterwards. A tied head is the embedding matrix itself, held once.

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/base/status.h"
#include "engine/spec/model_files.h"
#include "engine/spec/model_spec.h"
#include "engine/spec/weight_bytes.h"
#include "kernels/api/backend.h"

namespace polyad {

struct NormWeights {
  std::vector<float> weight;  // [hidden] or [head_dim]
  std::vector<float> bias;    // empty where the architecture has none
};

struct LinearWeights {
  std::unique_ptr<PackedMatrix> matrix;  // [out, in]
  std::vector<float> bias;               // [out] or empty
};

struct LayerWeights {
  NormWeights attention_norm;
  LinearWeights qkv;  // [(num_heads + 2 num_kv_heads) * head_dim, hidden]
  NormWeights q_norm;
  NormWeights k_norm;
  LinearWeights attention_out;  // [hidden, num_heads * head_dim]
  NormWeights mlp_norm;
  LinearWeights mlp_in;   // [2 * intermediate, hidden] gate|up, or [intermediate, hidden]
  LinearWeights mlp_out;  // [hidden, intermediate]
};

struct Weights {
  std::shared_ptr<PackedMatrix> embedding;  // [vocab, hidden]
  std::unique_ptr<PackedMatrix>
      position_embedding;  // [max_position, hidden]; null with rotary positions
  std::vector<LayerWeights> layers;
  NormWeights final_norm;
  std::shared_ptr<PackedMatrix> head;  // [vocab, hidden]; the embedding itself where tied

  WeightBytes bytes() const;
};

// Reads every tensor the spec names, in order, packing as it goes, so that at most one fused matrix
// is held twice.
StatusOr<Weights> LoadWeights(const ModelFiles& files, Backend& backend);

// What LoadWeights' would occupy: packs likewise, and lets go of each layer.
StatusOr<WeightBytes> MeasureWeights(const ModelFiles& files, Backend& backend);

}  // namespace polyad
