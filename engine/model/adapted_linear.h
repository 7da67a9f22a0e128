#pragma once

// One linear site group of one layer for a mixed batch: the shared base product once for every row,
// then each adapter's deltas on its own rows (zoo section 1.1: y = W x + b + sum of deltas of x).
// Base rows pay nothing.

#include <cstdint>
#include <vector>

#include "engine/adapters/adapter_version.h"
#include "engine/model/step_batch.h"
#include "engine/model/weights.h"
#include "kernels/api/backend.h"

namespace polyad {

class AdaptedLinear {
 public:
  explicit AdaptedLinear(Backend& backend) : backend_(backend) {}

  struct Target {
    int64_t layer = 0;
    SiteGroup group = SiteGroup::kQkv;
    bool accumulate = false;  // y += (a residual sink) instead of y =
  };
  void Apply(const LinearWeights& weights, const Target& target, const StepBatch& batch,
             ActivationRows x, FloatRows y);

 private:
  Backend& backend_;
  std::vector<DeltaSegment> segments_;  // reused between calls
};

}  // namespace polyad
