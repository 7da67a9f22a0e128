// Constants and simple types of a schema.

#include <algorithm>
#include <optional>

#include "engine/constraint/schema_lowering.h"
#include "engine/constraint/schema_merge.h"
#include "engine/io/quote.h"
#include "engine/request/constraint_spec.h"
#include "engine/text/utf8.h"

namespace polyad {

Status SchemaLowering::Constants(const OrderedJson& schema, NodeId start, NodeId accept) {
  OrderedJson values = OrderedJson::array();
  if (schema.contains("const")) values.push_back(schema["const"]);
  if (schema.contains("enum")) {
    const OrderedJson& listed = schema["enum"];
    if (!listed.is_array()) return WrongKeywordType("enum", "an array", listed);
    if (values.empty()) {
      values = listed;
    } else if (std::find(listed.begin(), listed.end(), values[0]) == listed.end()) {
      values = OrderedJson::array();
    }
  }
  for (const OrderedJson& value : values) {
    POLYAD_ASSIGN_OR_RETURN(const bool allowed, Allows(schema, value));
    if (allowed) builder_.Empty(builder_.Literal(start, DumpJson(value)), accept);
  }
  return absl::OkStatus();
}

// Whether the keywords beside a constant allow it.
StatusOr<bool> SchemaLowering::Allows(const OrderedJson& schema, const OrderedJson& value) {
  const std::string type = TypeOfValue(value);
  POLYAD_ASSIGN_OR_RETURN(const std::vector<std::string> types, TypesOf(schema));
  bool allowed = false;
  for (const std::string& name : types) {
    allowed = allowed || name == type || (name == "number" && type == "integer") ||
              (name == "integer" && type == "number" &&
               value.get<double>() == static_cast<double>(static_cast<int64_t>(
                                          std::clamp(value.get<double>(), -1e15, 1e15))));
  }
  for (const auto& [keyword, limit] : schema.items()) {
    const char* of_type = TypeOfKeyword(keyword);
    const std::string_view spoken_of = of_type == nullptr ? "" : of_type;
    if (spoken_of != type && !(spoken_of == "number" && type == "integer")) continue;
    if (spoken_of == "number" && limit.is_number() && keyword != "multipleOf") {
      const auto number = value.get<double>();
      const auto bound = limit.get<double>();
      allowed = allowed && (keyword == "minimum"            ? number >= bound
                            : keyword == "maximum"          ? number <= bound
                            : keyword == "exclusiveMinimum" ? number > bound
                                                            : number < bound);
    } else if ((keyword == "minLength" || keyword == "maxLength") && limit.is_number()) {
      const auto length = static_cast<double>(CountUtf8Chars(value.get<std::string>()));
      allowed = allowed && (keyword == "minLength" ? length >= limit.get<double>()
                                                   : length <= limit.get<double>());
    } else {
      return InvalidArgument("keyword %s: expected none beside constants of its type",
                             Quote(keyword));
    }
  }
  return allowed;
}

Status SchemaLowering::Types(const OrderedJson& schema, const std::string& at, NodeId start,
                             NodeId accept) {
  POLYAD_ASSIGN_OR_RETURN(std::vector<std::string> types, TypesOf(schema));
  if (!schema.contains("type")) {
    // Without a type, those that the keywords speak of.
    std::vector<std::string> spoken_of;
    for (const auto& [keyword, value] : schema.items()) {
      const char* of_type = TypeOfKeyword(keyword);
      if (of_type != nullptr && *of_type != '\0') spoken_of.push_back(of_type);
    }
    if (spoken_of.empty()) {
      builder_.Call(start, values_.AnyValue(), accept);
      return absl::OkStatus();
    }
    std::sort(spoken_of.begin(), spoken_of.end());
    spoken_of.erase(std::unique(spoken_of.begin(), spoken_of.end()), spoken_of.end());
    types = std::move(spoken_of);
  }
  for (const std::string& type : types) {
    POLYAD_RETURN_IF_ERROR(OneType(schema, at, type, start, accept));
  }
  return absl::OkStatus();
}

Status SchemaLowering::OneType(const OrderedJson& schema, const std::string& at,
                               const std::string& type, NodeId start, NodeId accept) {
  if (type == "object") return Object(schema, at, start, accept);
  if (type == "array") return Array(schema, at, start, accept);
  NodeId end = start;
  if (type == "null") {
    end = builder_.Literal(start, "null");
  } else if (type == "boolean") {
    builder_.Empty(builder_.Literal(start, "true"), accept);
    end = builder_.Literal(start, "false");
  } else if (type == "string") {
    POLYAD_ASSIGN_OR_RETURN(const StringBounds bounds, BoundsOfString(schema));
    POLYAD_ASSIGN_OR_RETURN(end, EmitString(values_, start, bounds));
  } else {
    const bool is_integer = type == "integer";
    POLYAD_ASSIGN_OR_RETURN(const NumberBounds bounds, BoundsOfNumber(schema, is_integer));
    if (bounds.empty()) {
      end = builder_.CallRule(start, is_integer ? values_.AnyInteger() : values_.AnyNumber());
    } else if (is_integer) {
      POLYAD_ASSIGN_OR_RETURN(end, EmitInteger(builder_, start, bounds));
    } else {
      POLYAD_ASSIGN_OR_RETURN(end, EmitDecimal(builder_, start, bounds));
    }
  }
  builder_.Empty(end, accept);
  return absl::OkStatus();
}

StatusOr<StringBounds> SchemaLowering::BoundsOfString(const OrderedJson& schema) {
  StringBounds bounds;
  POLYAD_ASSIGN_OR_RETURN(bounds.min_length, CountOf(schema, "minLength", 0));
  POLYAD_ASSIGN_OR_RETURN(bounds.max_length, CountOf(schema, "maxLength", -1));
  for (const char* keyword : {"pattern", "format"}) {
    const auto found = schema.find(keyword);
    if (found == schema.end()) continue;
    if (!found->is_string()) return WrongKeywordType(keyword, "a string", *found);
    (keyword[0] == 'p' ? bounds.pattern : bounds.format) = found->get<std::string>();
  }
  if (bounds.pattern.has_value() && static_cast<int64_t>(bounds.pattern->size()) > kMaxRegexBytes) {
    return InvalidArgument("keyword 'pattern': expected at most %d bytes, got %d", kMaxRegexBytes,
                           bounds.pattern->size());
  }
  return bounds;
}

StatusOr<NumberBounds> SchemaLowering::BoundsOfNumber(const OrderedJson& schema, bool is_integer) {
  NumberBounds bounds;
  const auto read = [&](const char* keyword) -> StatusOr<std::optional<double>> {
    const auto found = schema.find(keyword);
    if (found == schema.end()) return std::optional<double>();
    if (!found->is_number()) return WrongKeywordType(keyword, "a number", *found);
    return std::optional<double>(found->get<double>());
  };
  POLYAD_ASSIGN_OR_RETURN(bounds.low, read("minimum"));
  POLYAD_ASSIGN_OR_RETURN(bounds.high, read("maximum"));
  POLYAD_ASSIGN_OR_RETURN(const std::optional<double> above, read("exclusiveMinimum"));
  POLYAD_ASSIGN_OR_RETURN(const std::optional<double> below, read("exclusiveMaximum"));
  if (above.has_value() && (!bounds.low.has_value() || *above >= *bounds.low)) {
    bounds.low = above;
    bounds.low_is_excluded = true;
  }
  if (below.has_value() && (!bounds.high.has_value() || *below <= *bounds.high)) {
    bounds.high = below;
    bounds.high_is_excluded = true;
  }
  if (schema.contains("multipleOf") && !(is_integer && schema["multipleOf"] == 1)) {
    return InvalidArgument("keyword 'multipleOf': expected 1, of integers");
  }
  return bounds;
}

}  // namespace polyad
