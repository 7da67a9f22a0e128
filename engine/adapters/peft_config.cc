#include "engine/adapters/peft_config.h"

#include <re2/re2.h>

#include <algorithm>
#include <cmath>

namespace polyad {
namespace {

constexpr size_t kMaxPatterns = 1024;
constexpr size_t kMaxPatternBytes = 1024;
constexpr char kWhere[] = "adapter_config.json";

constexpr std::string_view kCommonKeys[] = {"peft_type",
                                            "task_type",
                                            "base_model_name_or_path",
                                            "revision",
                                            "inference_mode",
                                            "peft_version",
                                            "auto_mapping",
                                            "target_modules",
                                            "exclude_modules",
                                            "layers_to_transform",
                                            "layers_pattern",
                                            "modules_to_save",
                                            "fan_in_fan_out",
                                            "bias"};

bool IsSet(const OrderedJson& value) {
  if (value.is_null()) return false;
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_number()) return value.get<double>() != 0.0;
  return !value.empty();  // an empty string, array or object says nothing
}

std::string Shortened(const OrderedJson& value) {
  std::string text = value.dump(-1, ' ', true, OrderedJson::error_handler_t::replace);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return text;
}

RE2::Options PatternOptions() {
  RE2::Options options;
  options.set_max_mem(1 << 20);
  options.set_log_errors(false);
  return options;
}

}  // namespace

StatusOr<PatternValues> PatternValues::Parse(const OrderedJsonFields& config,
                                             const std::string& key, const std::string& pattern_key,
                                             double absent) {
  PatternValues values;
  POLYAD_ASSIGN_OR_RETURN(values.default_, config.NumberOr(key, absent, 0.0, 1e9));
  const OrderedJson* patterns = config.Find(pattern_key);
  if (patterns == nullptr) return values;
  if (!patterns->is_object()) return config.WrongType(pattern_key, "an object");
  if (patterns->size() > kMaxPatterns) {
    return ResourceExhausted("%s: %s: %d patterns, the limit is %d", kWhere, pattern_key,
                             patterns->size(), kMaxPatterns);
  }
  for (const auto& [pattern, value] : patterns->items()) {
    if (pattern.size() > kMaxPatternBytes) {
      return ResourceExhausted("%s: %s: a pattern of %d bytes, the limit is %d", kWhere,
                               pattern_key, pattern.size(), kMaxPatternBytes);
    }
    const std::string expression = "(?:.*\\.)?(?:" + pattern + ")";
    if (!RE2(expression, PatternOptions()).ok()) {
      return InvalidArgument("%s: %s: '%s' is not a regular expression we can run", kWhere,
                             pattern_key, pattern);
    }
    if (!value.is_number() || !std::isfinite(value.get<double>())) {
      return InvalidArgument("%s: %s: '%s': expected a number", kWhere, pattern_key, pattern);
    }
    values.patterns_.emplace_back(expression, value.get<double>());
  }
  return values;
}

double PatternValues::For(const std::string& module_path) const {
  for (const auto& [expression, value] : patterns_) {
    if (RE2::FullMatch(module_path, RE2(expression, PatternOptions()))) return value;
  }
  return default_;
}

StatusOr<OrderedJsonFields> PeftConfigFields(const OrderedJson& config,
                                             std::span<const std::string_view> own) {
  POLYAD_ASSIGN_OR_RETURN(OrderedJsonFields fields, OrderedJsonFields::Of(config, kWhere));
  POLYAD_RETURN_IF_ERROR(CheckPeftKeys(config, own));
  return fields;
}

Status CheckPeftKeys(const OrderedJson& config, std::span<const std::string_view> own) {
  std::vector<std::string_view> understood(std::begin(kCommonKeys), std::end(kCommonKeys));
  understood.insert(understood.end(), own.begin(), own.end());
  return CheckKnownKeys(config, understood);
}

Status CheckKnownKeys(const OrderedJson& config, std::span<const std::string_view> understood) {
  for (const auto& [key, value] : config.items()) {
    const bool known = std::find(understood.begin(), understood.end(), key) != understood.end();
    if (!known && IsSet(value)) {
      return Unimplemented("%s: key '%s' = %s is not understood", kWhere, key, Shortened(value));
    }
  }
  return absl::OkStatus();
}

Status RefuseIfSet(const OrderedJson& config, std::string_view key, std::string_view why) {
  const auto found = config.find(std::string(key));
  if (found == config.end() || !IsSet(*found)) return absl::OkStatus();
  return Unimplemented("%s: %s = %s is not served (%s)", kWhere, std::string(key),
                       Shortened(*found), std::string(why));
}

}  // namespace polyad
