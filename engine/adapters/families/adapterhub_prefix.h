#pragma once

// AdapterHub's prefix tuning: keys and values before each layer's own, stored whole (flat) or as an
// embedding through a two-layer map, evaluated here. Text positions start at 0 and every text token
// sees the whole prefix; layers in leave_out have none. Lowers to a soft prompt of stored keys and
// values. Source: zoo section 5.7; adapters 1.3.0, methods/prefix_tuning.py.

#include "engine/adapters/adapter_program.h"
#include "engine/adapters/adapterhub_config.h"
#include "engine/adapters/adapterhub_tensors.h"
#include "engine/base/status.h"
#include "engine/spec/model_spec.h"

namespace polyad {

Status LowerHubPrefix(HubTensors& tensors, const HubPart& part, const ModelSpec& spec,
                      AdapterProgram& program);

}  // namespace polyad
