#include "engine/adapters/xlora_config.h"

#include <string_view>

#include "engine/adapters/peft_config.h"

namespace polyad {
namespace {

constexpr char kWhere[] = "adapter_config.json";

// Read here, or of no effect once trained.
constexpr std::string_view kUnderstood[] = {
    "hidden_size",          "adapters",           "enable_softmax",
    "enable_softmax_topk",  "layerwise_scalings", "xlora_depth",
    "xlora_size",           "xlora_dropout_p",    "use_trainable_adapters",
    "softmax_temperature",  "top_k_lora",         "scaling_pass_value",
    "global_scaling_weight"};

// The coefficients of the first pass. Equal ones go through the top-k and its softmax too.
Status ReadFirstPass(const OrderedJsonFields& config, CoefficientRule& rule) {
  POLYAD_ASSIGN_OR_RETURN(const double value,
                          config.NumberOr("scaling_pass_value", 0.0, -1e3, 1e3));
  if (value != 0.0 && rule.top_k > 0 && rule.top_k < rule.num_experts) {
    return Unimplemented(
        "%s: scaling_pass_value other than 0 together with top_k_lora is not served (which of the "
        "equal LoRAs run is nowhere said)",
        kWhere);
  }
  const bool uniform = value != 0.0 && rule.softmax_of_top;
  rule.first_pass =
      static_cast<float>(uniform ? 1.0 / static_cast<double>(rule.num_experts) : value);
  return absl::OkStatus();
}

}  // namespace

bool IsXlora(const OrderedJson& config) {
  if (!config.is_object()) return false;
  const auto type = config.find("peft_type");
  return type != config.end() && type->is_string() && *type == "XLORA";
}

StatusOr<std::vector<std::string>> XloraFolders(const OrderedJson& config) {
  POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields fields, OrderedJsonFields::Of(config, kWhere));
  const OrderedJson* adapters = fields.Find("adapters");
  if (adapters == nullptr || !adapters->is_object() || adapters->empty()) {
    return fields.WrongType("adapters", "an object with a LoRA for each key");
  }
  if (static_cast<int64_t>(adapters->size()) > kMaxExperts) {
    return ResourceExhausted("%s: adapters: %d LoRAs, the limit is %d", kWhere, adapters->size(),
                             kMaxExperts);
  }
  std::vector<std::string> folders;
  for (const auto& [key, path] : adapters->items()) {
    const std::string number = std::to_string(folders.size());
    if (key != number) {
      return Unimplemented(
          "%s: adapters: expected key '%s' at place %s, got '%s': PEFT runs the LoRAs whose keys "
          "are their numbers alone",
          kWhere, number, number, key.substr(0, 60));
    }
    folders.push_back(number);
  }
  return folders;
}

StatusOr<XloraConfig> ReadXloraConfig(const OrderedJson& config, int64_t hidden_size) {
  POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields fields, PeftConfigFields(config, kUnderstood));
  POLYAD_ASSIGN_OR_RETURN(const std::vector<std::string> folders, XloraFolders(config));
  XloraConfig read;
  CoefficientRule& rule = read.rule;
  read.num_experts = rule.num_experts = static_cast<int64_t>(folders.size());
  POLYAD_ASSIGN_OR_RETURN(const int64_t hidden, fields.IntOr("hidden_size", 4096, 1, 1 << 20));
  if (hidden != hidden_size) {
    return FailedPrecondition("%s: hidden_size: expected %d, got %d: made for another base model",
                              kWhere, hidden_size, hidden);
  }
  POLYAD_ASSIGN_OR_RETURN(read.depth, fields.IntOr("xlora_depth", 1, 1, kMaxClassifierDepth));
  POLYAD_ASSIGN_OR_RETURN(read.width, fields.IntOr("xlora_size", 2048, 1, kMaxClassifierWidth));
  POLYAD_ASSIGN_OR_RETURN(const double dropout, fields.NumberOr("xlora_dropout_p", 0.2, 0, 1));
  read.has_dropout = dropout > 0;
  POLYAD_ASSIGN_OR_RETURN(read.per_module, fields.BoolOr("layerwise_scalings", false));
  POLYAD_ASSIGN_OR_RETURN(const double weight,
                          fields.NumberOr("global_scaling_weight", 1.0, -1e6, 1e6));
  read.weight = static_cast<float>(weight);
  POLYAD_ASSIGN_OR_RETURN(rule.softmax, fields.BoolOr("enable_softmax", true));
  POLYAD_ASSIGN_OR_RETURN(const double temperature,
                          fields.NumberOr("softmax_temperature", 1.0, 1e-4, 1e4));
  rule.temperature = static_cast<float>(temperature);
  POLYAD_ASSIGN_OR_RETURN(rule.softmax_of_top, fields.BoolOr("enable_softmax_topk", false));
  if (fields.Has("top_k_lora")) {
    POLYAD_ASSIGN_OR_RETURN(rule.top_k, fields.Int("top_k_lora", 1, rule.num_experts));
  }
  POLYAD_RETURN_IF_ERROR(ReadFirstPass(fields, rule));
  return read;
}

}  // namespace polyad
