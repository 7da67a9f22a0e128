#include "engine/model/adapted_linear.h"

namespace polyad {

void AdaptedLinear::Apply(const LinearWeights& weights, const Target& target,
                          const StepBatch& batch, ActivationRows x, FloatRows y) {
  GemmArgs gemm;
  gemm.weight = weights.matrix.get();
  gemm.bias = weights.bias.empty() ? nullptr : weights.bias.data();
  gemm.accumulate = target.accumulate;
  backend_.Gemm(gemm, x, y);

  segments_.clear();
  for (const StepSegment& segment : batch.segments) {
    if (segment.adapter == nullptr) continue;
    for (const SiteDelta& delta : segment.adapter->At(target.layer, target.group)) {
      segments_.push_back({segment.row_begin, segment.row_end, delta.y_column, delta.op.get()});
    }
  }
  if (!segments_.empty()) backend_.Apply(segments_, x, y);
}

}  // namespace polyad
