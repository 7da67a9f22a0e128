#include "engine/adapters/adapterhub_lora.h"

#include <utility>

#include "engine/adapters/families/adapterhub_parts.h"

namespace polyad {

void AddHubLora(HubLora lora, AdapterProgram& program) {
  std::span<const float> scale;
  if (!lora.scale.empty()) {
    scale = program.arena.Keep(std::move(lora.scale));
    program.ops.push_back({lora.site, OutputScale{scale}, OpStage::kOutput});
  }
  if (lora.down.rows == 0) return;
  LowRank op;
  op.a = program.arena.KeepMatrix(std::move(lora.down.values), lora.down.rows, lora.down.cols);
  op.b = program.arena.KeepMatrix(std::move(lora.up.values), lora.up.rows, lora.up.cols);
  op.outer = scale;
  program.ops.push_back({lora.site, op, OpStage::kDelta});
}

Status LowerHubLora(HubTensors& tensors, const HubPart& part, const LoweringContext& context,
                    AdapterProgram& program) {
  POLYAD_ASSIGN_OR_RETURN(std::vector<HubLora> loras, ReadHubLoras(tensors, part, context));
  for (HubLora& lora : loras) AddHubLora(std::move(lora), program);
  return absl::OkStatus();
}

}  // namespace polyad
