#pragma once

// AdapterHub's use_gating: a linear map and a sigmoid whose mean over a segment multiplies what a
// method adds (UniPELT: Mao et al. 2022). Source: zoo section 7; adapters 1.3.0, methods/.

#include <utility>
#include <vector>

#include "engine/adapters/adapter_program.h"
#include "engine/adapters/adapterhub_tensors.h"
#include "engine/base/status.h"

namespace polyad {

// `place.leaf` is the gate's own name, "gate" or empty; `shape` is (outputs, inputs). One gate for
// each output.
StatusOr<std::vector<SegmentGate>> ReadGates(HubTensors& tensors, const HubPlace& place,
                                             std::pair<int64_t, int64_t> shape);

}  // namespace polyad
