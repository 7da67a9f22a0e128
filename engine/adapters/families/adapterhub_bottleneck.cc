#include "engine/adapters/adapterhub_bottleneck.h"

#include <array>
#include <utility>

#include "engine/adapters/families/adapterhub_parts.h"

namespace polyad {
namespace {

constexpr std::array<HubLocation, 2> kLocations = {
    {{"mh_adapter", "attention_adapters", SubLayer::kAttention},
     {"output_adapter", "output_adapters", SubLayer::kMlp}}};

LayerNormWeights Keep(HubNorm norm, ProgramArena& arena) {
  LayerNormWeights weights;
  if (norm.weight.empty()) return weights;
  weights.weight = arena.Keep(std::move(norm.weight));
  weights.bias = arena.Keep(std::move(norm.bias));
  return weights;
}

SubLayerHook HubHook(const HubBottleneckForm& form, HubBottleneck bottleneck, int64_t hidden,
                     ProgramArena& arena) {
  Bottleneck op;
  op.norm = Keep(std::move(bottleneck.norm_before), arena);
  op.down = arena.KeepMatrix(std::move(bottleneck.down), bottleneck.width, hidden);
  op.down_bias = arena.Keep(std::move(bottleneck.down_bias));
  op.activation = form.activation;
  op.up = arena.KeepMatrix(std::move(bottleneck.up), hidden, bottleneck.width);
  op.up_bias = arena.Keep(std::move(bottleneck.up_bias));
  SubLayerHook hook;
  hook.op = op;
  hook.norm = Keep(std::move(bottleneck.norm_after), arena);
  hook.adds_residual = form.adds_residual;
  hook.gate = std::move(bottleneck.gate);
  if (form.parallel) {
    hook.input = Tap::kResidual;
    hook.skip = Tap::kOutput;
    return hook;
  }
  hook.input = form.sum_before ? Tap::kSum : Tap::kOutput;
  hook.skip = form.residual_is_output ? Tap::kOutput : hook.input;
  hook.norm_takes_skip = form.norm_after_residual;
  return hook;
}

}  // namespace

std::span<const HubLocation> HubLocations() { return kLocations; }

StatusOr<std::optional<SubLayerHook>> ReadHubHook(HubTensors& tensors, const HubPart& part,
                                                  const HubLocation& location, int64_t layer,
                                                  const LoweringContext& context,
                                                  ProgramArena& arena) {
  POLYAD_ASSIGN_OR_RETURN(const HubBottleneckForm form, ReadBottleneckForm(part));
  POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields options,
                          OrderedJsonFields::Of(part.options, "adapter_config.json"));
  POLYAD_ASSIGN_OR_RETURN(const bool used, options.BoolOr(location.option, false));
  if (!used || part.LeavesOut(layer)) return std::optional<SubLayerHook>();
  const int64_t hidden = context.spec.hidden_size;
  POLYAD_ASSIGN_OR_RETURN(
      HubBottleneck bottleneck,
      ReadBottleneck(tensors, part, {layer, location.module, "adapters", ""}, hidden));
  SubLayerHook hook = HubHook(form, std::move(bottleneck), hidden, arena);
  hook.layer = layer;
  hook.sub_layer = location.sub_layer;
  return std::optional(std::move(hook));
}

Status LowerHubBottlenecks(HubTensors& tensors, const HubPart& part, const LoweringContext& context,
                           AdapterProgram& program) {
  POLYAD_RETURN_IF_ERROR(LowerHubInvertible(tensors, part, context, program));
  for (int64_t layer = 0; layer < context.spec.num_layers; ++layer) {
    for (const HubLocation& location : kLocations) {
      POLYAD_ASSIGN_OR_RETURN(std::optional<SubLayerHook> hook,
                              ReadHubHook(tensors, part, location, layer, context, program.arena));
      if (!hook) continue;
      program.reads_whole_prompt |= !hook->gate.weight.empty();
      program.hooks.push_back(*std::move(hook));
    }
  }
  return absl::OkStatus();
}

}  // namespace polyad
