#pragma once

// What a lowering may look at besides its source: the base's shapes, and its weights for the
// families that need them.

#include "engine/adapters/base_weights.h"
#include "engine/base/status.h"
#include "engine/spec/model_spec.h"

namespace polyad {

struct LoweringContext {
  const ModelSpec& spec;
  const BaseWeights* base = nullptr;  // null where no weights are at hand

  // FAILED_PRECONDITION where a family needs the base's weights and none are there.
  StatusOr<const BaseWeights*> Base() const {
    if (base != nullptr) return base;
    return FailedPrecondition("this family is computed from the base's weights: expected a base");
  }
};

}  // namespace polyad
