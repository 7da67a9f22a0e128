#pragma once

// The methods an AdapterHub adapter may join, each adding to one program. Source: zoo sections 4.2,
// 5.5 to 5.7 and 10.2; adapters 1.3.0, methods/.

#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/adapters/adapter_program.h"
#include "engine/adapters/adapterhub_config.h"
#include "engine/adapters/adapterhub_lora.h"
#include "engine/adapters/adapterhub_setup.h"
#include "engine/adapters/adapterhub_tensors.h"
#include "engine/adapters/lowering_context.h"
#include "engine/base/status.h"

namespace polyad {

// Where the library puts bottlenecks, and the option that says so.
struct HubLocation {
  const char* option;
  const char* module;
  SubLayer sub_layer;
};
std::span<const HubLocation> HubLocations();

// One part's bottleneck at a place; nullopt where it has none there.
StatusOr<std::optional<SubLayerHook>> ReadHubHook(HubTensors& tensors, const HubPart& part,
                                                  const HubLocation& location, int64_t layer,
                                                  const LoweringContext& context,
                                                  ProgramArena& arena);

// Bottlenecks after attention or MLP: one hook each.
Status LowerHubBottlenecks(HubTensors& tensors, const HubPart& part, const LoweringContext& context,
                           AdapterProgram& program);

// LoRA, DoRA, VeRA and (IA)3: the same four where PEFT has them, with other scales, biases and, in
// GPT-2's fused projection, another layout.
Status LowerHubLora(HubTensors& tensors, const HubPart& part, const LoweringContext& context,
                    AdapterProgram& program);

void AddHubLora(const HubLora& lora, AdapterProgram& program);

// Keys and values before each layer's own, stored whole (flat) or as an embedding through a
// two-layer map, evaluated here. Text positions start at 0 and every text token sees the whole
// prefix; layers in leave_out have none.
Status LowerHubPrefix(HubTensors& tensors, const HubPart& part, const LoweringContext& context,
                      AdapterProgram& program);

// Interventions on a layer's output at the text's first positions and the segment's last ones; with
// the latter the adapter reads whole prompts. Comes after every other hook.
Status LowerHubReft(HubTensors& tensors, const HubPart& part, const LoweringContext& context,
                    AdapterProgram& program);

// A bottleneck configuration's inv_adapter: a coupling of the embedding's halves. Nothing where it
// has none.
Status LowerHubInvertible(HubTensors& tensors, const HubPart& part, const LoweringContext& context,
                          AdapterProgram& program);

// An adapter of a saved setup, and a fusion's maps.
struct HubChild {
  HubConfig config;
  HubTensors tensors;
};
struct HubFusion {
  HubTensors tensors;
  bool query = true;
  bool key = true;
  bool value = true;
  bool query_before_sum = false;
};

// The hooks of several adapters' bottlenecks together. `fusions` by name.
Status LowerSetupBottlenecks(const HubSetup& setup, std::vector<HubChild>& children,
                             std::map<std::string, HubFusion>& fusions,
                             const LoweringContext& context, AdapterProgram& program);

}  // namespace polyad
