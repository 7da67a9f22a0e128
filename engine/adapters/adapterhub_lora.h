#pragma once

// One AdapterHub LoRA-like module as numbers, scales folded in: y += up (down x) for LoRA, DoRA and
// VeRA, then y = scale * y for DoRA and (IA)3, the base's bias included. GPT-2's fused projection
// packs only the enabled parts of q, k, v; here it is whole again: a part that is not enabled gets
// no delta, and under (IA)3 alpha as its scale. With use_gating a gate of the module's input stands
// in place of alpha / r and of (IA)3's alpha (parts that are not enabled are then scaled by one);
// GPT-2's fused projection has one gate for each enabled part. Source: zoo sections 5.1, 5.2
// and 10.2; adapters 1.3.0, methods/lora.py.

#include <vector>

#include "engine/adapters/adapter_program.h"
#include "engine/adapters/adapterhub_config.h"
#include "engine/adapters/adapterhub_tensors.h"
#include "engine/adapters/dense_math.h"
#include "engine/adapters/lowering_context.h"
#include "engine/base/status.h"
#include "engine/spec/sites.h"

namespace polyad {

struct HubLora {
  SiteRef site;
  Matrix down;               // [rank, in]; no rows: (IA)3
  Matrix up;                 // [out, rank], scaled
  std::vector<float> scale;  // [out]; empty: none
  // Empty: none. A fused projection's gate i is of ranks [i rank, (i + 1) rank) and of the columns
  // of parts[i].
  std::vector<SegmentGate> gates;
  std::vector<int64_t> parts;
};

// Every module this part adapts, layer by layer. INVALID_ARGUMENT where a layer that the part does
// not leave out lacks a module that another has.
StatusOr<std::vector<HubLora>> ReadHubLoras(HubTensors& tensors, const HubPart& part,
                                            const LoweringContext& context);

}  // namespace polyad
