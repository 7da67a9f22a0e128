#include "engine/adapters/scaling_pass.h"

#include "kernels/api/give_way.h"

namespace polyad {
namespace {

Status CheckShapes(const ScalingPassTensors& tensors, const ModelSpec& spec) {
  if (tensors.rule.size() > kMaxCoefficients) {
    return ResourceExhausted("classifier: expected at most %d coefficients a token, got %d",
                             kMaxCoefficients, tensors.rule.size());
  }
  int64_t width = spec.hidden_size;
  for (const ScalingPassTensors::Layer& layer : tensors.layers) {
    const TensorView& weight = layer.weight;
    if (weight.rows > kMaxClassifierWidth) {
      return ResourceExhausted("classifier: expected layers of at most %d outputs, got %d",
                               kMaxClassifierWidth, weight.rows);
    }
    if (weight.cols != width || static_cast<int64_t>(layer.bias.size()) != weight.rows) {
      return InvalidArgument("classifier: expected a layer of %d inputs, got [%d, %d]", width,
                             weight.rows, weight.cols);
    }
    width = weight.rows;
  }
  if (tensors.layers.empty() || width != tensors.rule.size()) {
    return InvalidArgument("classifier: expected %d outputs, got %d", tensors.rule.size(), width);
  }
  return absl::OkStatus();
}

}  // namespace

StatusOr<ScalingPass> PackScalingPass(const ScalingPassTensors& tensors, const ModelSpec& spec,
                                      Backend& backend) {
  POLYAD_RETURN_IF_ERROR(CheckShapes(tensors, spec));
  ScalingPass pass;
  pass.rule = tensors.rule;
  PackShare share;
  const auto add = [&](const DeltaOp& op, std::shared_ptr<const PackedDelta>& to) -> Status {
    POLYAD_ASSIGN_OR_RETURN(to, backend.PackDelta(op, share));
    pass.cost += to->cost();
    GiveWay();
    return absl::OkStatus();
  };
  for (const ScalingPassTensors::Layer& layer : tensors.layers) {
    ScalingPass::Layer packed;
    packed.out = layer.weight.rows;
    POLYAD_RETURN_IF_ERROR(add(Dense{layer.weight}, packed.weight));
    POLYAD_RETURN_IF_ERROR(add(Bias{layer.bias}, packed.bias));
    pass.layers.push_back(std::move(packed));
  }
  return pass;
}

}  // namespace polyad
