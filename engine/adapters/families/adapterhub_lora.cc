#include "engine/adapters/adapterhub_lora.h"

#include <algorithm>
#include <utility>

#include "engine/adapters/families/adapterhub_parts.h"

namespace polyad {

namespace {

// One op for each gate: a fused projection's, of its enabled parts.
void AddGatedScale(const HubLora& lora, std::span<const float> scale, AdapterProgram& program) {
  const auto out = static_cast<int64_t>(scale.size());
  const bool fused = !lora.parts.empty();
  for (size_t i = 0; i < lora.gates.size(); ++i) {
    SiteOp op{lora.site, OutputScale{scale}, OpStage::kOutput, lora.gates[i]};
    op.gate_begin = fused ? lora.parts[i] * (out / 3) : 0;
    op.gate_end = fused ? op.gate_begin + out / 3 : out;
    // The vector once, its gates on their own columns.
    if (i > 0) op.op = OutputScale{program.arena.Keep(std::vector<float>(scale.size(), 1.0f))};
    program.ops.push_back(std::move(op));
  }
}

// Ranks [begin, begin + count) of a pair.
LowRank RanksOf(const HubLora& lora, int64_t begin, int64_t count, AdapterProgram& program) {
  LowRank op;
  std::vector<float> down(lora.down.Row(begin), lora.down.Row(begin) + count * lora.down.cols);
  std::vector<float> up;
  for (int64_t row = 0; row < lora.up.rows; ++row) {
    up.insert(up.end(), lora.up.Row(row) + begin, lora.up.Row(row) + begin + count);
  }
  op.a = program.arena.KeepMatrix(std::move(down), count, lora.down.cols);
  op.b = program.arena.KeepMatrix(std::move(up), lora.up.rows, count);
  return op;
}

}  // namespace

void AddHubLora(const HubLora& lora, AdapterProgram& program) {
  std::span<const float> scale;
  if (!lora.scale.empty()) scale = program.arena.Keep(lora.scale);
  program.reads_whole_prompt |= !lora.gates.empty();
  const bool is_scale = lora.down.rows == 0;
  if (is_scale && !lora.gates.empty()) {
    AddGatedScale(lora, scale, program);
    return;
  }
  if (!scale.empty()) program.ops.push_back({lora.site, OutputScale{scale}, OpStage::kOutput});
  if (is_scale) return;
  const auto num_gates = static_cast<int64_t>(lora.gates.size());
  const int64_t count = lora.down.rows / std::max<int64_t>(num_gates, 1);
  for (int64_t begin = 0; begin < lora.down.rows; begin += count) {
    LowRank op = RanksOf(lora, begin, count, program);
    op.outer = scale;
    SiteOp site_op{lora.site, op, OpStage::kDelta};
    if (num_gates > 0) site_op.gate = lora.gates[static_cast<size_t>(begin / count)];
    program.ops.push_back(std::move(site_op));
  }
}

Status LowerHubLora(HubTensors& tensors, const HubPart& part, const LoweringContext& context,
                    AdapterProgram& program) {
  POLYAD_ASSIGN_OR_RETURN(const std::vector<HubLora> loras, ReadHubLoras(tensors, part, context));
  for (const HubLora& lora : loras) AddHubLora(lora, program);
  return absl::OkStatus();
}

}  // namespace polyad
