#include "engine/adapters/adapterhub_config.h"

#include <algorithm>
#include <array>
#include <cstdlib>

namespace polyad {
namespace {

constexpr char kWhere[] = "adapter_config.json";
constexpr size_t kMaxParts = 16;
constexpr size_t kMaxLeaveOut = 4096;

constexpr char kBottleneck[] = R"({
  "mh_adapter": false, "output_adapter": true, "reduction_factor": 16.0, "non_linearity": "relu",
  "original_ln_before": false, "original_ln_after": true, "ln_before": false, "ln_after": false,
  "init_weights": "bert", "init_weights_seed": null, "is_parallel": false, "scaling": 1.0,
  "use_gating": false, "residual_before_ln": true, "adapter_residual_before_ln": false,
  "inv_adapter": null, "inv_adapter_reduction_factor": null, "cross_adapter": false,
  "leave_out": [], "dropout": 0.0, "phm_layer": false, "phm_dim": 4, "factorized_phm_W": true,
  "shared_W_phm": false, "shared_phm_rule": true, "factorized_phm_rule": false,
  "phm_c_init": "normal", "phm_init_range": 0.0001, "learn_phm": true,
  "hypercomplex_nonlinearity": "glorot-uniform", "phm_rank": 1, "phm_bias": true,
  "stochastic_depth": 0.0})";
constexpr char kLora[] = R"({
  "selfattn_lora": true, "intermediate_lora": false, "output_lora": false, "leave_out": [], "r": 8,
  "alpha": 8, "dropout": 0.0, "attn_matrices": ["q", "v"], "composition_mode": "add",
  "init_weights": "lora", "init_weights_seed": null, "use_gating": false, "use_dora": false,
  "vera_d": null, "vera_b": null, "dtype": null})";
// Beside kLora's.
constexpr char kMultiTaskLora[] = R"({
  "n_up_projection": 1, "task_specific_matrix_type": "singular_values",
  "weights_sharpness": 0.05})";
constexpr char kPrefix[] = R"({
  "encoder_prefix": true, "cross_prefix": true, "leave_out": [], "flat": false,
  "prefix_length": 30, "bottleneck_size": 512, "non_linearity": "tanh", "dropout": 0.0,
  "use_gating": false, "shared_gating": true, "init_weights_seed": null})";
constexpr char kReft[] = R"({
  "layers": "all", "prefix_positions": 3, "suffix_positions": 0, "r": 1, "orthogonality": true,
  "tied_weights": false, "subtract_projection": true, "dropout": 0.05, "non_linearity": null,
  "dtype": null, "output_reft": true, "init_weights_seed": null})";

struct Named {
  std::string_view name;
  std::string_view architecture;
  std::string_view changes;  // to the architecture's defaults
};

constexpr char kSequential[] = R"({"original_ln_before": true})";
constexpr char kDouble[] = R"({"mh_adapter": true, "non_linearity": "swish"})";
constexpr char kParallel[] =
    R"({"is_parallel": true, "reduction_factor": 2.0, "scaling": 4.0, "init_weights": "mam_adapter"})";
constexpr char kScaledParallel[] =
    R"({"is_parallel": true, "reduction_factor": 2.0, "scaling": "learned", "init_weights": "mam_adapter"})";
constexpr char kSequentialInvertible[] =
    R"({"original_ln_before": true, "inv_adapter": "nice", "inv_adapter_reduction_factor": 2.0})";
constexpr char kDoubleInvertible[] =
    R"({"mh_adapter": true, "non_linearity": "swish", "inv_adapter": "nice",
        "inv_adapter_reduction_factor": 2.0})";
constexpr char kIa3[] =
    R"({"intermediate_lora": true, "r": 1, "alpha": 1, "attn_matrices": ["k", "v"],
        "composition_mode": "scale", "init_weights": "ia3"})";

constexpr Named kNamed[] = {
    {"pfeiffer", "", kSequential},
    {"seq_bn", "", kSequential},
    {"houlsby", "", kDouble},
    {"double_seq_bn", "", kDouble},
    {"parallel", "", kParallel},
    {"par_bn", "", kParallel},
    {"scaled_parallel", "", kScaledParallel},
    {"scaled_par_bn", "", kScaledParallel},
    {"pfeiffer+inv", "", kSequentialInvertible},
    {"seq_bn_inv", "", kSequentialInvertible},
    {"houlsby+inv", "", kDoubleInvertible},
    {"double_seq_bn_inv", "", kDoubleInvertible},
    {"compacter++", "",
     R"({"original_ln_before": true, "phm_layer": true, "reduction_factor": 32.0, "non_linearity": "gelu"})"},
    {"compacter", "",
     R"({"mh_adapter": true, "phm_layer": true, "reduction_factor": 32.0, "non_linearity": "gelu"})"},
    {"lora", "lora", "{}"},
    {"mtl_lora", "mtl_lora", "{}"},
    {"ia3", "lora", kIa3},
    {"dora", "lora", R"({"use_dora": true})"},
    {"vera", "lora", R"({"vera_d": 0.1, "vera_b": 0.0, "init_weights": "vera"})"},
    {"dvora", "lora",
     R"({"vera_d": 0.1, "vera_b": 0.0, "init_weights": "vera", "use_dora": true})"},
    {"prefix_tuning", "prefix_tuning", "{}"},
    {"prefix_tuning_flat", "prefix_tuning", R"({"flat": true})"},
    {"loreft", "reft", "{}"},
    {"noreft", "reft", R"({"orthogonality": false})"},
    {"direft", "reft", R"({"orthogonality": false})"},
};

// Unions by name, as the named parts they join; every part of unipelt is gated.
constexpr std::string_view kMam =
    R"({"architecture": "union", "configs": [
        {"architecture": "prefix_tuning", "bottleneck_size": 800},
        {"is_parallel": true, "reduction_factor": 2.0, "scaling": 4.0}]})";
constexpr std::string_view kUnipelt =
    R"({"architecture": "union", "configs": [
        {"architecture": "prefix_tuning", "prefix_length": 10, "use_gating": true},
        {"original_ln_before": true, "use_gating": true},
        {"architecture": "lora", "r": 8, "alpha": 2, "use_gating": true}]})";

OrderedJson Trusted(std::string_view text) {  // of our own constants above
  return OrderedJson::parse(text, nullptr, /*allow_exceptions=*/false);
}

OrderedJson OptionsOf(const Named& named) {
  OrderedJson options = Trusted(named.changes);
  if (!named.architecture.empty()) options["architecture"] = std::string(named.architecture);
  return options;
}

StatusOr<OrderedJson> ResolveName(const std::string& name) {
  if (name == "mam") return Trusted(kMam);
  if (name == "unipelt") return Trusted(kUnipelt);
  for (const Named& named : kNamed) {
    if (named.name == name) return OptionsOf(named);
  }
  return Unimplemented("%s: config '%s' is not a configuration polyad knows", kWhere,
                       name.substr(0, 60));
}

std::string_view DefaultsOf(HubMethod method) {
  switch (method) {
    case HubMethod::kBottleneck:
      return kBottleneck;
    case HubMethod::kLora:
      return kLora;
    case HubMethod::kPrefix:
      return kPrefix;
    case HubMethod::kReft:
      return kReft;
  }
  return "{}";
}

StatusOr<std::string> ArchitectureOf(const OrderedJson& options) {
  POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields fields, OrderedJsonFields::Of(options, kWhere));
  return fields.StringOr("architecture", "");
}

StatusOr<HubMethod> MethodOf(const std::string& architecture) {
  if (architecture.empty() || architecture == "bottleneck") return HubMethod::kBottleneck;
  if (architecture == "lora" || architecture == "mtl_lora") return HubMethod::kLora;
  if (architecture == "prefix_tuning") return HubMethod::kPrefix;
  if (architecture == "reft") return HubMethod::kReft;
  return Unimplemented("%s: architecture '%s' is not served", kWhere, architecture.substr(0, 60));
}

Status CheckLeaveOut(const OrderedJson& options) {
  const auto list = options.find("leave_out");
  if (list == options.end()) return absl::OkStatus();
  if (!list->is_array() || list->size() > kMaxLeaveOut) {
    return InvalidArgument("%s: leave_out: expected a list of layer numbers", kWhere);
  }
  return CheckLayerNumbers(*list, "leave_out");
}

// The defaults under what the file says. A key the library does not have may change the maths.
StatusOr<HubPart> ReadPart(const OrderedJson& options) {
  HubPart part;
  POLYAD_ASSIGN_OR_RETURN(const std::string architecture, ArchitectureOf(options));
  POLYAD_ASSIGN_OR_RETURN(part.method, MethodOf(architecture));
  part.options = Trusted(DefaultsOf(part.method));
  if (architecture == "mtl_lora") part.options.update(Trusted(kMultiTaskLora));
  for (const auto& [key, value] : options.items()) {
    if (key == "architecture") continue;
    const bool says_nothing = value.is_null() || (value.is_boolean() && !value.get<bool>());
    if (!part.options.contains(key)) {
      if (says_nothing || key == "attention_type" || key == "random_uniform_scale") continue;
      return Unimplemented("%s: config key '%s' is not understood", kWhere, key.substr(0, 60));
    }
    if (key != "leave_out" || !value.is_null()) part.options[key] = value;
  }
  POLYAD_RETURN_IF_ERROR(CheckLeaveOut(part.options));
  return part;
}

// Files from before the library wrote its version called the tanh form of gelu "gelu".
void RenameOldActivation(OrderedJson& options) {
  const auto found = options.find("non_linearity");
  if (found == options.end() || !found->is_string()) return;
  if (*found == "gelu") {
    *found = "gelu_new";
  } else if (*found == "gelu_orig") {
    *found = "gelu";
  }
}

// Names that options had in version 1.
void RenameOldKeys(OrderedJson& options) {
  constexpr std::array<std::pair<const char*, const char*>, 4> kRenamed = {
      {{"LN_before", "ln_before"},
       {"LN_after", "ln_after"},
       {"MH_Adapter", "mh_adapter"},
       {"Output_Adapter", "output_adapter"}}};
  for (const auto& [before, after] : kRenamed) {
    const auto found = options.find(before);
    if (found == options.end()) continue;
    OrderedJson value = *found;
    options.erase(before);
    options[after] = std::move(value);
  }
  const auto invertible = options.find("invertible_adapter");
  if (invertible == options.end() || !invertible->is_object()) return;
  const OrderedJson old = *invertible;
  options.erase("invertible_adapter");
  if (old.contains("block_type")) options["inv_adapter"] = old["block_type"];
  if (old.contains("reduction_factor")) {
    options["inv_adapter_reduction_factor"] = old["reduction_factor"];
  }
}

// "adapters.1.0.3" -> whether it is below 1.1.0; other libraries' versions are not.
bool IsBefore110(const std::string& version) {
  constexpr std::string_view kPrefixOfOurs = "adapters.";
  if (!version.starts_with(kPrefixOfOurs)) return false;
  char* end = nullptr;
  const char* numbers = version.c_str() + kPrefixOfOurs.size();
  const long major = std::strtol(numbers, &end, 10);
  const long minor = *end == '.' ? std::strtol(end + 1, nullptr, 10) : 0;
  return major < 1 || (major == 1 && minor < 1);
}

// Those versions trained LoRA with a scale of one, whatever alpha said.
void RepairScale(OrderedJson& options) {
  const auto architecture = options.find("architecture");
  const auto rank = options.find("r");
  if (architecture == options.end() || *architecture != "lora" || rank == options.end()) return;
  options["alpha"] = *rank;
}

StatusOr<OrderedJson> ReadOptions(const OrderedJsonFields& fields) {
  const OrderedJson* found = fields.Find("config");
  if (found == nullptr) return InvalidArgument("%s: key 'config': expected an object", kWhere);
  POLYAD_ASSIGN_OR_RETURN(const std::string version, fields.StringOr("version", ""));
  OrderedJson options;
  if (found->is_string()) {
    POLYAD_ASSIGN_OR_RETURN(options, ResolveName(found->get<std::string>()));
  } else if (found->is_object()) {
    options = *found;
  } else {
    return fields.WrongType("config", "an object or a name");
  }
  RenameOldKeys(options);
  if (version.empty()) RenameOldActivation(options);
  if (IsBefore110(version)) RepairScale(options);
  return options;
}

}  // namespace

bool HubPart::LeavesOut(int64_t layer) const {
  const auto list = options.find("leave_out");
  if (list == options.end()) return false;
  return std::any_of(list->begin(), list->end(),
                     [layer](const OrderedJson& value) { return value.get<int64_t>() == layer; });
}

Status CheckLayerNumbers(const OrderedJson& list, std::string_view key) {
  for (const OrderedJson& value : list) {
    if (value.is_number_unsigned()) continue;
    return InvalidArgument("%s: %s: expected layer numbers from 0, got %s", kWhere,
                           std::string(key), DescribeJson(value));
  }
  return absl::OkStatus();
}

StatusOr<HubConfig> ParseHubConfig(const OrderedJson& json) {
  POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields fields, OrderedJsonFields::Of(json, kWhere));
  HubConfig config;
  POLYAD_ASSIGN_OR_RETURN(config.name, fields.String("name"));
  POLYAD_ASSIGN_OR_RETURN(const OrderedJson options, ReadOptions(fields));
  POLYAD_ASSIGN_OR_RETURN(const std::string architecture, ArchitectureOf(options));
  config.is_union = architecture == "union";
  if (!config.is_union) {
    POLYAD_ASSIGN_OR_RETURN(HubPart part, ReadPart(options));
    config.parts.push_back(std::move(part));
    return config;
  }
  for (const auto& [key, value] : options.items()) {
    if (key == "architecture" || key == "configs") continue;
    return Unimplemented("%s: config key '%s' of a union is not understood", kWhere,
                         key.substr(0, 60));
  }
  const auto parts = options.find("configs");
  if (parts == options.end() || !parts->is_array() || parts->empty() || parts->size() > kMaxParts) {
    return InvalidArgument("%s: configs: expected a list of 1 to %d", kWhere, kMaxParts);
  }
  for (const OrderedJson& part_options : *parts) {
    POLYAD_ASSIGN_OR_RETURN(HubPart part, ReadPart(part_options));
    config.parts.push_back(std::move(part));
  }
  return config;
}

StatusOr<std::string> AdapterHubType(const OrderedJson& json) {
  POLYAD_ASSIGN_OR_RETURN(const HubConfig config, ParseHubConfig(json));
  if (config.is_union) return std::string("union");
  switch (config.parts[0].method) {
    case HubMethod::kBottleneck:
      return std::string("bottleneck");
    case HubMethod::kLora:
      return std::string("lora");
    case HubMethod::kPrefix:
      return std::string("prefix_tuning");
    case HubMethod::kReft:
      return std::string("reft");
  }
  return Unimplemented("%s: architecture is not served", kWhere);
}

}  // namespace polyad
