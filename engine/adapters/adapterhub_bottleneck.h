#pragma once

// One AdapterHub bottleneck as numbers: whatever the file stores (dense or Kronecker factors, own
// or shared, a learned scale) becomes two dense maps with the scale folded into the second. With r
// the residual entering a sub-layer and o the sub-layer's output,
//   sequential: u = o + r if sum_before else o;  f = up act(down LNb(u) + b_d) + b_u;
//               h = LNa(f) + res, or LNa(f + res) if norm_after_residual, res = o or u;
//               with use_gating f is multiplied by mean(sigmoid(gate u)) first;
//   parallel:   u = r, h = LNa(f) + o;
//   and then out = h + r if adds_residual, else h. Without an adapter out = o + r.
// LNb and LNa are LayerNorms with bias and eps 1e-5 whatever the model's own norm. Source: zoo
// section 5.5, the general rule; adapters 1.3.0, methods/modeling.py.

#include <cstdint>
#include <vector>

#include "engine/adapters/adapter_program.h"
#include "engine/adapters/adapterhub_config.h"
#include "engine/adapters/adapterhub_tensors.h"
#include "engine/base/status.h"
#include "kernels/api/activation.h"

namespace polyad {

// An option's non_linearity; UNIMPLEMENTED for one we do not have.
StatusOr<ActivationKind> ReadHubActivation(const OrderedJsonFields& options);

struct HubNorm {
  std::vector<float> weight;  // empty: no norm
  std::vector<float> bias;
};

// What one part of the configuration says about all its bottlenecks.
struct HubBottleneckForm {
  bool parallel = false;
  bool sum_before = false;           // original_ln_before
  bool residual_is_output = true;    // residual_before_ln: res = o, else res = u
  bool adds_residual = true;         // original_ln_after
  bool norm_after_residual = false;  // adapter_residual_before_ln
  ActivationKind activation = ActivationKind::kRelu;
};

struct HubBottleneck {
  int64_t width = 0;
  HubNorm norm_before;
  std::vector<float> down;       // [width, hidden]
  std::vector<float> down_bias;  // [width]
  std::vector<float> up;         // [hidden, width], scaled
  std::vector<float> up_bias;    // [hidden], scaled
  HubNorm norm_after;
  SegmentGate gate;  // of its input, before any norm
};

StatusOr<HubBottleneckForm> ReadBottleneckForm(const HubPart& part);

// `place` is a layer's "attention_adapters" or "output_adapters".
StatusOr<HubBottleneck> ReadBottleneck(HubTensors& tensors, const HubPart& part,
                                       const HubPlace& place, int64_t hidden);

}  // namespace polyad
