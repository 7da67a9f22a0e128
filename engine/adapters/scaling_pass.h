#pragma once

// What weighs an adapter's terms token by token (X-LoRA: Buehler and Buehler 2024): every token
// runs twice, first through the base alone with a cache of its own. The first pass's last hidden
// state, normed, goes through a classifier, layers with relu between them, whose logits give each
// token a coefficient for each term. As a program has it, and packed. Source: zoo section 5.6; peft
// 0.21.2, tuners/xlora.

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/base/status.h"
#include "engine/spec/model_spec.h"
#include "kernels/api/backend.h"

namespace polyad {

inline constexpr int64_t kMaxClassifierWidth = 1 << 14;  // of any layer
inline constexpr int64_t kMaxClassifierDepth = 32;
inline constexpr int64_t kMaxCoefficients = 1 << 12;  // of one token

// From logits [num_groups, num_experts] to coefficients. Where there is a softmax, a group's are
// one distribution.
struct CoefficientRule {
  int64_t num_groups = 1;
  int64_t num_experts = 1;
  bool softmax = true;
  float temperature = 1.0f;     // of it
  int64_t top_k = 0;            // keep a group's largest alone; 0: all
  bool softmax_of_top = false;  // a second softmax, over what is left and not zero
  float first_pass = 0.0f;      // every coefficient during the first pass

  int64_t size() const { return num_groups * num_experts; }
};

struct ScalingPassTensors {
  struct Layer {
    TensorView weight;        // [out, in]
    std::vector<float> bias;  // [out]
  };
  std::vector<Layer> layers;
  CoefficientRule rule;
};

struct ScalingPass {
  struct Layer {
    std::shared_ptr<const PackedDelta> weight;
    std::shared_ptr<const PackedDelta> bias;
    int64_t out = 0;
  };
  std::vector<Layer> layers;
  CoefficientRule rule;
  DeltaCost cost;
};

// INVALID_ARGUMENT where the layers do not lead from the hidden size to the rule's coefficients,
// RESOURCE_EXHAUSTED where they are wider than what a step has room for.
StatusOr<ScalingPass> PackScalingPass(const ScalingPassTensors& tensors, const ModelSpec& spec,
                                      Backend& backend);

}  // namespace polyad
