#pragma once

// The methods an AdapterHub adapter may join, each adding to one program. Source: zoo sections 4.2,
// 5.5 to 5.7 and 10.2; adapters 1.3.0, methods/.

#include "engine/adapters/adapter_program.h"
#include "engine/adapters/adapterhub_config.h"
#include "engine/adapters/adapterhub_tensors.h"
#include "engine/adapters/lowering_context.h"
#include "engine/base/status.h"

namespace polyad {

// Bottlenecks after attention or MLP: one hook each.
Status LowerHubBottlenecks(HubTensors& tensors, const HubPart& part, const LoweringContext& context,
                           AdapterProgram& program);

// LoRA, DoRA, VeRA and (IA)3: the same four where PEFT has them, with other scales, biases and, in
// GPT-2's fused projection, another layout.
Status LowerHubLora(HubTensors& tensors, const HubPart& part, const LoweringContext& context,
                    AdapterProgram& program);

// Keys and values before each layer's own, stored whole (flat) or as an embedding through a
// two-layer map, evaluated here. Text positions start at 0 and every text token sees the whole
// prefix; layers in leave_out have none.
Status LowerHubPrefix(HubTensors& tensors, const HubPart& part, const LoweringContext& context,
                      AdapterProgram& program);

}  // namespace polyad
