#include "engine/constraint/schema_merge.h"

#include <algorithm>
#include <array>

#include "engine/io/quote.h"

namespace polyad {
namespace {

constexpr std::array<std::string_view, 17> kAnnotations = {
    "title",       "description",   "default",          "examples",        "example", "deprecated",
    "readOnly",    "writeOnly",     "$comment",         "$schema",         "$id",     "$defs",
    "definitions", "discriminator", "contentMediaType", "contentEncoding", "$anchor"};
constexpr std::array<const char*, 6> kTypes = {"object", "array",   "string",
                                               "number", "boolean", "null"};
constexpr std::array<std::string_view, 5> kLowerBounds = {"minimum", "exclusiveMinimum",
                                                          "minLength", "minItems", "minProperties"};
constexpr std::array<std::string_view, 5> kUpperBounds = {"maximum", "exclusiveMaximum",
                                                          "maxLength", "maxItems", "maxProperties"};

bool IsOneOf(std::string_view word, std::span<const std::string_view> words) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

OrderedJson Both(const OrderedJson& one, const OrderedJson& other) {
  if (one == other) return one;
  return OrderedJson{{"allOf", OrderedJson::array({one, other})}};
}

StatusOr<OrderedJson> MergeTypes(const OrderedJson& one, const OrderedJson& other) {
  POLYAD_ASSIGN_OR_RETURN(const std::vector<std::string> a, TypesOf({{"type", one}}));
  POLYAD_ASSIGN_OR_RETURN(const std::vector<std::string> b, TypesOf({{"type", other}}));
  const auto has = [](const std::vector<std::string>& types, const std::string& type) {
    return std::find(types.begin(), types.end(), type) != types.end() ||
           (type == "integer" && std::find(types.begin(), types.end(), "number") != types.end());
  };
  OrderedJson both = OrderedJson::array();
  for (const std::string& type : a) {
    if (has(b, type)) both.push_back(type);
  }
  for (const std::string& type : b) {
    if (has(a, type) && std::find(both.begin(), both.end(), type) == both.end()) {
      both.push_back(type);
    }
  }
  return both;
}

OrderedJson MergeProperties(const OrderedJson& one, const OrderedJson& other) {
  OrderedJson merged = one;
  for (const auto& [name, schema] : other.items()) {
    const auto found = merged.find(name);
    if (found == merged.end()) {
      merged[name] = schema;
    } else {
      *found = Both(*found, schema);
    }
  }
  return merged;
}

OrderedJson Union(const OrderedJson& one, const OrderedJson& other) {
  OrderedJson merged = one;
  for (const OrderedJson& item : other) {
    if (std::find(merged.begin(), merged.end(), item) == merged.end()) merged.push_back(item);
  }
  return merged;
}

OrderedJson Intersection(const OrderedJson& one, const OrderedJson& other) {
  OrderedJson merged = OrderedJson::array();
  for (const OrderedJson& item : one) {
    if (std::find(other.begin(), other.end(), item) != other.end()) merged.push_back(item);
  }
  return merged;
}

StatusOr<OrderedJson> MergeMember(const std::string& keyword, const OrderedJson& one,
                                  const OrderedJson& other) {
  if (one == other) return one;
  if (keyword == "type") return MergeTypes(one, other);
  const bool objects = one.is_object() && other.is_object();
  const bool arrays = one.is_array() && other.is_array();
  if (keyword == "properties" && objects) return MergeProperties(one, other);
  if (keyword == "items" && (objects || one.is_boolean() || other.is_boolean())) {
    return Both(one, other);
  }
  if (keyword == "additionalProperties") {
    if (one == false || other == false) return OrderedJson(false);
    return Both(one, other);
  }
  if (keyword == "required" && arrays) return Union(one, other);
  if (keyword == "enum" && arrays) return Intersection(one, other);
  const bool numbers = one.is_number() && other.is_number();
  if (numbers && IsOneOf(keyword, kLowerBounds)) return one < other ? other : one;
  if (numbers && IsOneOf(keyword, kUpperBounds)) return one < other ? one : other;
  return InvalidArgument(
      "keyword %s: expected one value for it in schemas that apply together, "
      "got two that are not merged",
      Quote(keyword));
}

// What `closed` says of other properties would bind the names that only `other` declares.
Status CheckAdditional(const OrderedJson& closed, const OrderedJson& other) {
  const auto additional = closed.find("additionalProperties");
  if (additional == closed.end() || *additional == true || !other.contains("properties")) {
    return absl::OkStatus();
  }
  for (const auto& [name, schema] : other["properties"].items()) {
    if (closed.contains("properties") && closed["properties"].contains(name)) continue;
    return InvalidArgument(
        "keyword 'additionalProperties': expected none beside another schema's "
        "property %s",
        Quote(name));
  }
  return absl::OkStatus();
}

// Every value that a schema allows, where it lists them.
const OrderedJson* ConstantsOf(const OrderedJson& schema, OrderedJson& scratch) {
  if (!schema.is_object()) return nullptr;
  if (const auto listed = schema.find("enum"); listed != schema.end() && listed->is_array()) {
    return &*listed;
  }
  if (const auto single = schema.find("const"); single != schema.end()) {
    scratch = OrderedJson::array({*single});
    return &scratch;
  }
  return nullptr;
}

bool ConstantsDiffer(const OrderedJson& one, const OrderedJson& other) {
  OrderedJson a_scratch;
  OrderedJson b_scratch;
  const OrderedJson* a = ConstantsOf(one, a_scratch);
  const OrderedJson* b = ConstantsOf(other, b_scratch);
  return a != nullptr && b != nullptr && Intersection(*a, *b).empty();
}

bool TypesDiffer(const OrderedJson& one, const OrderedJson& other) {
  const auto types = [](const OrderedJson& schema) -> StatusOr<OrderedJson> {
    OrderedJson scratch;
    const OrderedJson* constants = ConstantsOf(schema, scratch);
    if (schema.contains("type") || constants == nullptr) {
      POLYAD_ASSIGN_OR_RETURN(const std::vector<std::string> names, TypesOf(schema));
      return OrderedJson(names);
    }
    OrderedJson names = OrderedJson::array();
    for (const OrderedJson& value : *constants) names.push_back(TypeOfValue(value));
    return names;
  };
  const StatusOr<OrderedJson> a = types(one);
  const StatusOr<OrderedJson> b = types(other);
  if (!a.ok() || !b.ok() || a->empty() || b->empty()) return false;
  const StatusOr<OrderedJson> both = MergeTypes(*a, *b);
  return both.ok() && both->empty();
}

bool Requires(const OrderedJson& schema, const std::string& name) {
  const auto required = schema.find("required");
  return required != schema.end() && required->is_array() &&
         std::find(required->begin(), required->end(), name) != required->end();
}

bool IsObjectOnly(const OrderedJson& schema) {
  const auto type = schema.find("type");
  return type != schema.end() && *type == "object";
}

// A property that `one` requires keeps its objects out of `other`: by its constants, or because
// `other` knows it not and takes no more.
bool RequiredTellsApart(const OrderedJson& one, const OrderedJson& other) {
  const auto properties = one.find("properties");
  if (properties == one.end() || !properties->is_object()) return false;
  const auto others = other.find("properties");
  const bool has_others = others != other.end() && others->is_object();
  for (const auto& [name, schema] : properties->items()) {
    if (!Requires(one, name)) continue;
    if (has_others && others->contains(name)) {
      const OrderedJson& theirs = (*others)[name];
      if (Requires(other, name) && schema.is_object() && theirs.is_object() &&
          (ConstantsDiffer(schema, theirs) || TypesDiffer(schema, theirs))) {
        return true;
      }
    } else if (other.contains("additionalProperties") && other["additionalProperties"] == false) {
      return true;
    }
  }
  return false;
}

}  // namespace

bool IsAnnotation(std::string_view keyword) {
  return IsOneOf(keyword, kAnnotations) || keyword.starts_with("x-");
}

std::string TypeOfValue(const OrderedJson& value) {
  if (value.is_object()) return "object";
  if (value.is_array()) return "array";
  if (value.is_string()) return "string";
  if (value.is_boolean()) return "boolean";
  if (value.is_null()) return "null";
  return value.is_number_integer() ? "integer" : "number";
}

StatusOr<std::vector<std::string>> TypesOf(const OrderedJson& schema) {
  std::vector<std::string> types;
  const auto named = schema.find("type");
  if (named == schema.end()) return std::vector<std::string>(kTypes.begin(), kTypes.end());
  const OrderedJson list = named->is_array() ? *named : OrderedJson::array({*named});
  for (const OrderedJson& item : list) {
    const std::string type = item.is_string() ? item.get<std::string>() : std::string();
    const bool is_known =
        type == "integer" || std::find(kTypes.begin(), kTypes.end(), type) != kTypes.end();
    if (!is_known) {
      return InvalidArgument("keyword 'type': expected JSON Schema's type names, got %s",
                             item.is_string() ? Quote(type) : DescribeJson(item));
    }
    if (std::find(types.begin(), types.end(), type) == types.end()) types.push_back(type);
  }
  if (std::find(types.begin(), types.end(), "number") != types.end()) {
    std::erase(types, "integer");
  }
  return types;
}

StatusOr<OrderedJson> MergeSchemas(const OrderedJson& one, const OrderedJson& other) {
  if (one == false || other == false) return OrderedJson(false);
  if (one == true) return other;
  if (other == true) return one;
  if (!one.is_object() || !other.is_object()) {
    return InvalidArgument("expected schemas, got %s", DescribeJson(one.is_object() ? other : one));
  }
  POLYAD_RETURN_IF_ERROR(CheckAdditional(one, other));
  POLYAD_RETURN_IF_ERROR(CheckAdditional(other, one));
  OrderedJson merged = one;
  for (const auto& [keyword, value] : other.items()) {
    if (IsAnnotation(keyword)) continue;
    const auto found = merged.find(keyword);
    if (found == merged.end()) {
      merged[keyword] = value;
    } else {
      POLYAD_ASSIGN_OR_RETURN(*found, MergeMember(keyword, *found, value));
    }
  }
  return merged;
}

bool AreDisjoint(const OrderedJson& one, const OrderedJson& other) {
  if (!one.is_object() || !other.is_object()) return one == false || other == false;
  if (ConstantsDiffer(one, other) || TypesDiffer(one, other)) return true;
  if (!IsObjectOnly(one) || !IsObjectOnly(other)) return false;
  return RequiredTellsApart(one, other) || RequiredTellsApart(other, one);
}

}  // namespace polyad
