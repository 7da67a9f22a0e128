// An AdapterHub directory: one method or a union of several (MAM, S4, AutoPEFT, any ConfigUnion),
// whose parts act at different places and add up. Source: zoo section 4.2; adapters 1.3.0.

#include "engine/adapters/adapterhub_config.h"
#include "engine/adapters/adapterhub_tensors.h"
#include "engine/adapters/families/adapterhub_parts.h"
#include "engine/adapters/families/family.h"

namespace polyad {
namespace {

Status LowerPart(HubTensors& tensors, const HubPart& part, const LoweringContext& context,
                 AdapterProgram& program) {
  switch (part.method) {
    case HubMethod::kBottleneck:
      return LowerHubBottlenecks(tensors, part, context, program);
    case HubMethod::kLora:
      return LowerHubLora(tensors, part, context, program);
    case HubMethod::kPrefix:
      return LowerHubPrefix(tensors, part, context, program);
    case HubMethod::kReft:
      return LowerHubReft(tensors, part, context, program);
  }
  return absl::OkStatus();
}

}  // namespace

StatusOr<AdapterProgram> LowerAdapterHub(AdapterSource& source, const LoweringContext& context) {
  POLYAD_ASSIGN_OR_RETURN(const HubConfig config, ParseHubConfig(source.config()));
  POLYAD_ASSIGN_OR_RETURN(HubTensors tensors, HubTensors::Of(source, config.name));
  AdapterProgram program;
  // A layer's output is intervened on after everything else.
  for (const bool interventions : {false, true}) {
    for (const HubPart& part : config.parts) {
      if ((part.method == HubMethod::kReft) != interventions) continue;
      POLYAD_RETURN_IF_ERROR(LowerPart(tensors, part, context, program));
    }
  }
  return program;
}

}  // namespace polyad
