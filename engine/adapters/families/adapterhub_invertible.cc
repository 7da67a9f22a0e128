// AdapterHub's invertible adapters: with the embedded row's halves x1 and x2, x1 += F(x2) and then
// x2 += G(x1), both nets linear-act-linear. Of a causal model's plain head the library inverts
// nothing. Source: zoo sections 5.5 and 10.2; adapters 1.3.0, methods/invertible.py, modeling.py
// (NICECouplingBlock).

#include <cmath>
#include <string>
#include <utility>

#include "engine/adapters/adapterhub_bottleneck.h"
#include "engine/adapters/families/adapterhub_parts.h"

namespace polyad {
namespace {

constexpr char kWhere[] = "adapter_config.json";

StatusOr<Bottleneck> ReadNet(HubTensors& tensors, const std::string& net, ActivationKind activation,
                             std::pair<int64_t, int64_t> shape, double factor,
                             ProgramArena& arena) {
  const auto [out, in] = shape;
  const auto width = static_cast<int64_t>(std::floor(static_cast<double>(in) / factor));
  if (width < 1) {
    return InvalidArgument("%s: inv_adapter_reduction_factor: leaves no width of %d", kWhere, in);
  }
  const auto place = [&net](const std::string& leaf) {
    return HubPlace{-1, "", "invertible_adapters", net + "." + leaf};
  };
  Bottleneck op;
  op.activation = activation;
  POLYAD_ASSIGN_OR_RETURN(op.down, tensors.TakeMatrix(place("0.weight"), width, in));
  POLYAD_ASSIGN_OR_RETURN(std::vector<float> down_bias, tensors.Take(place("0.bias"), {width}));
  POLYAD_ASSIGN_OR_RETURN(op.up, tensors.TakeMatrix(place("2.weight"), out, width));
  POLYAD_ASSIGN_OR_RETURN(std::vector<float> up_bias, tensors.Take(place("2.bias"), {out}));
  op.down_bias = arena.Keep(std::move(down_bias));
  op.up_bias = arena.Keep(std::move(up_bias));
  return op;
}

}  // namespace

Status LowerHubInvertible(HubTensors& tensors, const HubPart& part, const LoweringContext& context,
                          AdapterProgram& program) {
  POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields options,
                          OrderedJsonFields::Of(part.options, kWhere));
  const OrderedJson* kind = options.Find("inv_adapter");
  if (kind == nullptr || kind->is_null() || kind->is_boolean()) return absl::OkStatus();
  if (*kind != "nice") {
    return Unimplemented("%s: inv_adapter: only \"nice\" couplings are served", kWhere);
  }
  POLYAD_ASSIGN_OR_RETURN(const double factor,
                          options.Number("inv_adapter_reduction_factor", 1e-3, 1e9));
  POLYAD_ASSIGN_OR_RETURN(const ActivationKind activation, ReadHubActivation(options));
  const int64_t hidden = context.spec.hidden_size;
  const int64_t half = hidden / 2;
  EmbeddingCoupling coupling;
  POLYAD_ASSIGN_OR_RETURN(coupling.first, ReadNet(tensors, "F", activation, {half, hidden - half},
                                                  factor, program.arena));
  POLYAD_ASSIGN_OR_RETURN(coupling.second, ReadNet(tensors, "G", activation, {hidden - half, half},
                                                   factor, program.arena));
  program.couplings.push_back(coupling);
  return absl::OkStatus();
}

}  // namespace polyad
