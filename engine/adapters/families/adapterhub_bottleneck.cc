#include "engine/adapters/adapterhub_bottleneck.h"

#include <array>
#include <utility>

#include "engine/adapters/families/adapterhub_parts.h"

namespace polyad {
namespace {

struct Location {
  const char* option;
  const char* module;
  SubLayer sub_layer;
};
constexpr std::array<Location, 2> kLocations = {
    {{"mh_adapter", "attention_adapters", SubLayer::kAttention},
     {"output_adapter", "output_adapters", SubLayer::kMlp}}};

LayerNormWeights Keep(HubNorm norm, ProgramArena& arena) {
  LayerNormWeights weights;
  if (norm.weight.empty()) return weights;
  weights.weight = arena.Keep(std::move(norm.weight));
  weights.bias = arena.Keep(std::move(norm.bias));
  return weights;
}

}  // namespace

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

Status LowerHubBottlenecks(HubTensors& tensors, const HubPart& part, const LoweringContext& context,
                           AdapterProgram& program) {
  POLYAD_ASSIGN_OR_RETURN(const HubBottleneckForm form, ReadBottleneckForm(part));
  POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields options,
                          OrderedJsonFields::Of(part.options, "adapter_config.json"));
  POLYAD_ASSIGN_OR_RETURN(const bool gated, options.BoolOr("use_gating", false));
  if (gated) {
    return Unimplemented("adapter_config.json: use_gating of bottlenecks is not served");
  }
  const int64_t hidden = context.spec.hidden_size;
  for (int64_t layer = 0; layer < context.spec.num_layers; ++layer) {
    if (part.LeavesOut(layer)) continue;
    for (const Location& location : kLocations) {
      POLYAD_ASSIGN_OR_RETURN(const bool used, options.BoolOr(location.option, false));
      if (!used) continue;
      POLYAD_ASSIGN_OR_RETURN(
          HubBottleneck bottleneck,
          ReadBottleneck(tensors, part, {layer, location.module, "adapters", ""}, hidden));
      SubLayerHook hook = HubHook(form, std::move(bottleneck), hidden, program.arena);
      hook.layer = layer;
      hook.sub_layer = location.sub_layer;
      program.hooks.push_back(std::move(hook));
    }
  }
  return absl::OkStatus();
}

}  // namespace polyad
