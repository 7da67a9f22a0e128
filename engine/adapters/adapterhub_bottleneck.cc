#include "engine/adapters/adapterhub_bottleneck.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "engine/adapters/activation_names.h"
#include "engine/adapters/adapterhub_gates.h"

namespace polyad {
namespace {

constexpr char kWhere[] = "adapter_config.json";
constexpr int64_t kMaxPhmDim = 256;

HubPlace At(const HubPlace& place, std::string leaf) {
  HubPlace at = place;
  at.kind = "adapters";
  at.leaf = std::move(leaf);
  return at;
}

HubPlace Shared(std::string leaf) { return {-1, "", "shared_parameters", std::move(leaf)}; }

// What the library computes: int(hidden // factor), at least one.
StatusOr<int64_t> WidthOf(const HubPart& part, int64_t layer, int64_t hidden) {
  const OrderedJson* factor = &part.options["reduction_factor"];
  if (factor->is_object()) {
    auto found = factor->find(std::to_string(layer));
    if (found == factor->end()) found = factor->find("default");
    if (found == factor->end()) {
      return InvalidArgument("%s: reduction_factor has neither layer %d nor 'default'", kWhere,
                             layer);
    }
    factor = &*found;
  }
  const double value = factor->is_number() ? factor->get<double>() : 0.0;
  if (!(value > 1e-3 && value < 1e9)) {
    return InvalidArgument("%s: reduction_factor: expected a positive number", kWhere);
  }
  const auto size = static_cast<double>(hidden);
  return std::max<int64_t>(1, std::llround((size - std::fmod(size, value)) / value));
}

// [n, rows, cols] Kronecker factors A [n, n, n] and W: sum of A_i (x) W_i is [n rows, n cols], used
// as y = x H; returned transposed, [n cols, n rows].
std::vector<float> SumOfProducts(const std::vector<float>& rule, const std::vector<float>& w,
                                 int64_t n, int64_t rows, int64_t cols) {
  std::vector<double> sum(static_cast<size_t>(n * n * rows * cols), 0.0);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t a = 0; a < n; ++a) {
      for (int64_t b = 0; b < n; ++b) {
        const double scale = rule[static_cast<size_t>((i * n + a) * n + b)];
        for (int64_t r = 0; r < rows; ++r) {
          for (int64_t c = 0; c < cols; ++c) {
            sum[static_cast<size_t>((b * cols + c) * n * rows + a * rows + r)] +=
                scale * static_cast<double>(w[static_cast<size_t>((i * rows + r) * cols + c)]);
          }
        }
      }
    }
  }
  return {sum.begin(), sum.end()};
}

// n products of [rows, rank] and [rank, cols].
std::vector<float> BatchProduct(const std::vector<float>& left, const std::vector<float>& right,
                                int64_t n, int64_t rows, int64_t cols) {
  const int64_t rank = static_cast<int64_t>(left.size()) / (n * rows);
  std::vector<float> out(static_cast<size_t>(n * rows * cols));
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) {
        double sum = 0;
        for (int64_t k = 0; k < rank; ++k) {
          sum += static_cast<double>(left[static_cast<size_t>((i * rows + r) * rank + k)]) *
                 static_cast<double>(right[static_cast<size_t>((i * rank + k) * cols + c)]);
        }
        out[static_cast<size_t>((i * rows + r) * cols + c)] = static_cast<float>(sum);
      }
    }
  }
  return out;
}

// [n, rows, cols] stored whole, or as left [n, rows, rank] and right [n, rank, cols].
StatusOr<std::vector<float>> ReadFactored(HubTensors& tensors, const HubPlace& place, int64_t n,
                                          int64_t rows, int64_t cols) {
  HubPlace left = place;
  HubPlace right = place;
  left.leaf += "_left";
  right.leaf += "_right";
  if (!tensors.Has(left) && !tensors.Has(right)) return tensors.Take(place, {n, rows, cols});
  POLYAD_ASSIGN_OR_RETURN(const std::vector<float> l, tensors.Take(left, {n, rows, -1}));
  const auto rank = static_cast<int64_t>(l.size()) / (n * rows);
  POLYAD_ASSIGN_OR_RETURN(const std::vector<float> r, tensors.Take(right, {n, rank, cols}));
  return BatchProduct(l, r, n, rows, cols);
}

// A map [out, in] from Kronecker factors; `position` is "down" or "up" as shared tensors call it.
StatusOr<std::vector<float>> ReadPhm(HubTensors& tensors, const OrderedJsonFields& options,
                                     const HubPlace& layer, const std::string& position,
                                     std::pair<int64_t, int64_t> shape) {
  POLYAD_ASSIGN_OR_RETURN(const int64_t n, options.Int("phm_dim", 1, kMaxPhmDim));
  POLYAD_ASSIGN_OR_RETURN(const bool shared_rule, options.BoolOr("shared_phm_rule", false));
  POLYAD_ASSIGN_OR_RETURN(const bool shared_w, options.BoolOr("shared_W_phm", false));
  const auto [out, in] = shape;
  if (in % n != 0 || out % n != 0) {
    return FailedPrecondition("%s: phm_dim %d divides not both %d and %d: made for another base",
                              kWhere, n, in, out);
  }
  const auto in_layer = [&layer](const std::string& leaf) {
    HubPlace place = layer;
    place.leaf += leaf;
    return place;
  };
  POLYAD_ASSIGN_OR_RETURN(
      const std::vector<float> rule,
      ReadFactored(tensors, shared_rule ? Shared("phm_rule") : in_layer("phm_rule"), n, n, n));
  POLYAD_ASSIGN_OR_RETURN(const std::vector<float> w,
                          ReadFactored(tensors, shared_w ? Shared("W_" + position) : in_layer("W"),
                                       n, in / n, out / n));
  return SumOfProducts(rule, w, n, in / n, out / n);
}

StatusOr<HubNorm> ReadNorm(HubTensors& tensors, const HubPlace& place, int64_t hidden) {
  HubNorm norm;
  POLYAD_ASSIGN_OR_RETURN(norm.weight, tensors.Take(At(place, place.leaf + ".weight"), {hidden}));
  POLYAD_ASSIGN_OR_RETURN(norm.bias, tensors.Take(At(place, place.leaf + ".bias"), {hidden}));
  return norm;
}

// The norm before the down map stands under two names: its own, and as step 0 of the down map.
StatusOr<HubNorm> ReadNormBefore(HubTensors& tensors, const HubPlace& place, int64_t hidden) {
  POLYAD_ASSIGN_OR_RETURN(HubNorm norm,
                          ReadNorm(tensors, At(place, "adapter_norm_before"), hidden));
  if (tensors.Has(At(place, "adapter_down.0.weight"))) {
    POLYAD_ASSIGN_OR_RETURN(const HubNorm copy,
                            ReadNorm(tensors, At(place, "adapter_down.0"), hidden));
    if (copy.weight != norm.weight || copy.bias != norm.bias) {
      return InvalidArgument("tensor %s: expected a copy of adapter_norm_before, got other values",
                             tensors.NameOf(At(place, "adapter_down.0.weight")));
    }
  }
  return norm;
}

// A number, or the name of what the file holds: "learned" (one value) or "channel" (one per row).
Status FoldScale(HubTensors& tensors, const OrderedJsonFields& options, const HubPlace& place,
                 int64_t hidden, HubBottleneck& bottleneck) {
  const OrderedJson* scaling = options.Find("scaling");
  if (scaling == nullptr) return options.WrongType("scaling", "a number or a name");
  std::vector<float> scale;
  if (scaling->is_number_float()) {
    scale = {scaling->get<float>()};
  } else if (*scaling == "learned" || *scaling == "channel") {
    const int64_t count = *scaling == "learned" ? 1 : hidden;
    POLYAD_ASSIGN_OR_RETURN(scale, tensors.Take(At(place, "scaling"), {count}));
  } else {
    return InvalidArgument(
        "%s: scaling: expected a number with a decimal point, \"learned\" or \"channel\"", kWhere);
  }
  if (!std::isfinite(scale[0])) return options.WrongType("scaling", "a finite number");
  for (int64_t row = 0; row < hidden; ++row) {
    const float factor = scale[scale.size() == 1 ? 0 : static_cast<size_t>(row)];
    bottleneck.up_bias[static_cast<size_t>(row)] *= factor;
    for (int64_t k = 0; k < bottleneck.width; ++k) {
      bottleneck.up[static_cast<size_t>(row * bottleneck.width + k)] *= factor;
    }
  }
  return absl::OkStatus();
}

struct MapSite {
  std::string leaf;      // "adapter_down.0" or "adapter_up"
  std::string position;  // "down" or "up"
  int64_t out = 0;
  int64_t in = 0;
};

StatusOr<std::pair<std::vector<float>, std::vector<float>>> ReadMap(
    HubTensors& tensors, const OrderedJsonFields& options, const HubPlace& place,
    const MapSite& site) {
  std::pair<std::vector<float>, std::vector<float>> map;
  POLYAD_ASSIGN_OR_RETURN(const bool is_phm, options.BoolOr("phm_layer", false));
  if (!is_phm) {
    POLYAD_ASSIGN_OR_RETURN(map.first,
                            tensors.Take(At(place, site.leaf + ".weight"), {site.out, site.in}));
    POLYAD_ASSIGN_OR_RETURN(map.second, tensors.Take(At(place, site.leaf + ".bias"), {site.out}));
    return map;
  }
  POLYAD_ASSIGN_OR_RETURN(map.first, ReadPhm(tensors, options, At(place, site.leaf + "."),
                                             site.position, {site.out, site.in}));
  POLYAD_ASSIGN_OR_RETURN(const bool has_bias, options.BoolOr("phm_bias", false));
  map.second.assign(static_cast<size_t>(site.out), 0.0f);
  if (has_bias) {
    POLYAD_ASSIGN_OR_RETURN(map.second, tensors.Take(At(place, site.leaf + ".b"), {site.out}));
  }
  return map;
}

}  // namespace

StatusOr<ActivationKind> ReadHubActivation(const OrderedJsonFields& options) {
  POLYAD_ASSIGN_OR_RETURN(std::string name, options.String("non_linearity"));
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return ActivationNamed(name, std::string(kWhere) + ": non_linearity");
}

StatusOr<HubBottleneckForm> ReadBottleneckForm(const HubPart& part) {
  POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields options,
                          OrderedJsonFields::Of(part.options, kWhere));
  HubBottleneckForm form;
  POLYAD_ASSIGN_OR_RETURN(form.parallel, options.BoolOr("is_parallel", false));
  POLYAD_ASSIGN_OR_RETURN(form.sum_before, options.BoolOr("original_ln_before", false));
  POLYAD_ASSIGN_OR_RETURN(form.adds_residual, options.BoolOr("original_ln_after", false));
  POLYAD_ASSIGN_OR_RETURN(form.norm_after_residual,
                          options.BoolOr("adapter_residual_before_ln", false));
  POLYAD_ASSIGN_OR_RETURN(form.activation, ReadHubActivation(options));
  const OrderedJson* residual = options.Find("residual_before_ln");
  if (residual != nullptr && residual->is_string()) {
    return Unimplemented("%s: residual_before_ln = '%s' is not served: the library raises for it",
                         kWhere, residual->get<std::string>().substr(0, 40));
  }
  POLYAD_ASSIGN_OR_RETURN(form.residual_is_output, options.BoolOr("residual_before_ln", false));
  return form;
}

StatusOr<HubBottleneck> ReadBottleneck(HubTensors& tensors, const HubPart& part,
                                       const HubPlace& place, int64_t hidden) {
  POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields options,
                          OrderedJsonFields::Of(part.options, kWhere));
  HubBottleneck bottleneck;
  POLYAD_ASSIGN_OR_RETURN(bottleneck.width, WidthOf(part, place.layer, hidden));
  const int64_t width = bottleneck.width;
  POLYAD_ASSIGN_OR_RETURN(const bool norm_before, options.BoolOr("ln_before", false));
  if (norm_before) {
    POLYAD_ASSIGN_OR_RETURN(bottleneck.norm_before, ReadNormBefore(tensors, place, hidden));
  }
  POLYAD_ASSIGN_OR_RETURN(
      std::tie(bottleneck.down, bottleneck.down_bias),
      ReadMap(tensors, options, place,
              {norm_before ? "adapter_down.1" : "adapter_down.0", "down", width, hidden}));
  POLYAD_ASSIGN_OR_RETURN(std::tie(bottleneck.up, bottleneck.up_bias),
                          ReadMap(tensors, options, place, {"adapter_up", "up", hidden, width}));
  POLYAD_RETURN_IF_ERROR(FoldScale(tensors, options, place, hidden, bottleneck));
  POLYAD_ASSIGN_OR_RETURN(const bool norm_after, options.BoolOr("ln_after", false));
  if (norm_after) {
    POLYAD_ASSIGN_OR_RETURN(bottleneck.norm_after,
                            ReadNorm(tensors, At(place, "adapter_norm_after"), hidden));
  }
  POLYAD_ASSIGN_OR_RETURN(const bool gated, options.BoolOr("use_gating", false));
  if (gated) {
    POLYAD_ASSIGN_OR_RETURN(std::vector<SegmentGate> gates,
                            ReadGates(tensors, At(place, "gate"), {1, hidden}));
    bottleneck.gate = std::move(gates[0]);
  }
  return bottleneck;
}

}  // namespace polyad
