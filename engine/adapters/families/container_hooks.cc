#include "engine/adapters/families/container_hooks.h"

#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/adapters/activation_names.h"
#include "engine/adapters/dense_math.h"
#include "engine/io/quote.h"

namespace polyad {
namespace {

Status KeepVector(const ContainerOp& op, const char* name, int64_t size, AdapterProgram& program,
                  std::span<const float>& to) {
  POLYAD_ASSIGN_OR_RETURN(std::vector<float> values, op.Vector(name, size));
  to = program.arena.Keep(std::move(values));
  return absl::OkStatus();
}

// A LayerNorm where either of its tensors is there.
Status TakeNorm(const ContainerOp& op, const std::string& prefix, int64_t size,
                AdapterProgram& program, LayerNormWeights& norm) {
  const std::string weight = prefix + "_w";
  const std::string bias = prefix + "_b";
  if (!op.Has(weight) && !op.Has(bias)) return absl::OkStatus();
  POLYAD_RETURN_IF_ERROR(KeepVector(op, weight.c_str(), size, program, norm.weight));
  return KeepVector(op, bias.c_str(), size, program, norm.bias);
}

// f(u) = scale * (U act(D norm(u) + d) + u'), u of `in` numbers.
StatusOr<Bottleneck> TakeBottleneck(const ContainerOp& op, int64_t in, int64_t out,
                                    AdapterProgram& program) {
  Bottleneck result;
  POLYAD_ASSIGN_OR_RETURN(FloatTensor down, op.Floats("wd", {kAnySize, in}));
  const int64_t width = down.Dim(0);
  POLYAD_ASSIGN_OR_RETURN(Matrix up, op.Take("wu", out, width));
  result.down = program.arena.KeepMatrix(std::move(down.values), width, in);
  result.up = program.arena.KeepMatrix(std::move(up.values), out, width);
  POLYAD_RETURN_IF_ERROR(KeepVector(op, "bd", width, program, result.down_bias));
  POLYAD_RETURN_IF_ERROR(KeepVector(op, "bu", out, program, result.up_bias));
  POLYAD_RETURN_IF_ERROR(TakeNorm(op, "ln", in, program, result.norm));
  if (op.Has("scale_by_row")) {
    POLYAD_RETURN_IF_ERROR(KeepVector(op, "scale_by_row", out, program, result.scale));
  } else {
    POLYAD_ASSIGN_OR_RETURN(const double scale, op.Number("scale", 1.0));
    result.scale = program.arena.Keep(std::vector<float>{static_cast<float>(scale)});
  }
  POLYAD_ASSIGN_OR_RETURN(
      result.activation,
      ActivationNamed(op.Word("act", "relu"), "zoo.json: " + op.name() + ": key 'act'"));
  return result;
}

StatusOr<Tap> TapOf(const ContainerOp& op) {
  constexpr std::pair<std::string_view, Tap> kTaps[] = {
      {"r", Tap::kResidual}, {"n", Tap::kNormed}, {"o", Tap::kOutput}, {"z", Tap::kSum}};
  const std::string name = op.Word("tap", "");
  for (const auto& [known, tap] : kTaps) {
    if (known == name) return tap;
  }
  return InvalidArgument("zoo.json: %s: key 'tap': expected r, n, o or z, got %s", op.name(),
                         Quote(name));
}

StatusOr<int64_t> LayerOf(const ContainerOp& op, const ModelSpec& spec) {
  const int64_t layer = op.place().layer;
  if (layer >= 0 && layer < spec.num_layers) return layer;
  return FailedPrecondition("tensor %s: the base model has no such layer", op.name());
}

SubLayer SubLayerOf(const ContainerOp& op) {
  return op.place().site == "attn" ? SubLayer::kAttention : SubLayer::kMlp;
}

}  // namespace

Status LowerTokenRouter(const ContainerOp& op, const ModelSpec& spec, AdapterProgram& program) {
  TokenRouter router;
  POLYAD_ASSIGN_OR_RETURN(router.layer, LayerOf(op, spec));
  router.sub_layer = SubLayerOf(op);
  POLYAD_ASSIGN_OR_RETURN(router.weight, op.Vector("w", spec.hidden_size));
  POLYAD_ASSIGN_OR_RETURN(const double threshold, op.Number("threshold", 0.0));
  router.threshold = static_cast<float>(threshold);
  program.routers.push_back(std::move(router));
  return absl::OkStatus();
}

Status AddSubLayerHook(const ContainerOp& op, const ModelSpec& spec, const DeltaOp& delta,
                       AdapterProgram& program) {
  SubLayerHook hook;
  POLYAD_ASSIGN_OR_RETURN(hook.layer, LayerOf(op, spec));
  hook.sub_layer = SubLayerOf(op);
  hook.op = delta;
  POLYAD_ASSIGN_OR_RETURN(hook.input, TapOf(op));
  POLYAD_RETURN_IF_ERROR(TakeNorm(op, "post", spec.hidden_size, program, hook.norm));
  program.hooks.push_back(std::move(hook));
  return absl::OkStatus();
}

Status LowerSubLayerBottleneck(const ContainerOp& op, const ModelSpec& spec,
                               AdapterProgram& program) {
  POLYAD_ASSIGN_OR_RETURN(const Bottleneck bottleneck,
                          TakeBottleneck(op, spec.hidden_size, spec.hidden_size, program));
  return AddSubLayerHook(op, spec, bottleneck, program);
}

Status LowerEmbeddingBottleneck(const ContainerOp& op, const ModelSpec& spec,
                                AdapterProgram& program) {
  POLYAD_ASSIGN_OR_RETURN(const Bottleneck bottleneck,
                          TakeBottleneck(op, spec.hidden_size, spec.hidden_size, program));
  program.stream_ops.push_back(bottleneck);
  return absl::OkStatus();
}

Status LowerSiteBottleneck(const ContainerOp& op, SiteRef site, const SiteShape& shape,
                           AdapterProgram& program) {
  const std::string tap = op.Word("tap", "");
  if (tap != "in" && tap != "out" && tap != "beside") {
    return InvalidArgument("zoo.json: %s: key 'tap': expected in, out or beside, got %s", op.name(),
                           Quote(tap));
  }
  const int64_t in = tap == "out" ? shape.out : shape.in;
  const int64_t out = tap == "in" ? shape.in : shape.out;
  POLYAD_ASSIGN_OR_RETURN(const Bottleneck bottleneck, TakeBottleneck(op, in, out, program));
  const OpStage stage = tap == "in"    ? OpStage::kInput
                        : tap == "out" ? OpStage::kAfter
                                       : OpStage::kDelta;
  program.ops.push_back({site, bottleneck, stage});
  return absl::OkStatus();
}

}  // namespace polyad
