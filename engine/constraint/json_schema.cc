#include "engine/constraint/json_schema.h"

#include <algorithm>
#include <utility>

#include "engine/constraint/schema_lowering.h"
#include "engine/constraint/schema_merge.h"
#include "engine/io/quote.h"
#include "engine/request/constraint_spec.h"

namespace polyad {

namespace {

// Schemas made by resolving $ref, allOf and anyOf beside other keywords: each copies one.
constexpr int kMaxMerges = 2000;
constexpr int kMaxMergeDepth = 32;
constexpr size_t kMaxMergedBytes = 16 << 20;
constexpr size_t kMaxOneOf = 64;  // every pair is compared

}  // namespace

const char* TypeOfKeyword(std::string_view keyword) {
  struct Keyword {
    std::string_view name;
    const char* type;
  };
  static constexpr Keyword kKeywords[] = {
      {"type", ""},
      {"enum", ""},
      {"const", ""},
      {"anyOf", ""},
      {"oneOf", ""},
      {"allOf", ""},
      {"$ref", ""},
      {"properties", "object"},
      {"required", "object"},
      {"additionalProperties", "object"},
      {"minProperties", "object"},
      {"maxProperties", "object"},
      {"items", "array"},
      {"prefixItems", "array"},
      {"minItems", "array"},
      {"maxItems", "array"},
      {"uniqueItems", "array"},
      {"minLength", "string"},
      {"maxLength", "string"},
      {"pattern", "string"},
      {"format", "string"},
      {"minimum", "number"},
      {"maximum", "number"},
      {"exclusiveMinimum", "number"},
      {"exclusiveMaximum", "number"},
      {"multipleOf", "number"},
  };
  for (const Keyword& known : kKeywords) {
    if (keyword == known.name) return known.type;
  }
  return nullptr;
}

std::string DumpJson(const OrderedJson& value) {
  return value.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
}

Status WrongKeywordType(const char* keyword, const char* expected, const OrderedJson& got) {
  return InvalidArgument("keyword '%s': expected %s, got %s", keyword, expected, DescribeJson(got));
}

StatusOr<int64_t> CountOf(const OrderedJson& schema, const char* keyword, int64_t absent) {
  const auto found = schema.find(keyword);
  if (found == schema.end()) return absent;
  const bool is_whole = found->is_number() && found->get<double>() >= 0 &&
                        found->get<double>() < 1e15 &&
                        found->get<double>() == static_cast<double>(found->get<int64_t>());
  if (!is_whole) return WrongKeywordType(keyword, "a count", *found);
  return found->get<int64_t>();
}

StatusOr<RuleId> SchemaLowering::Lower() {
  POLYAD_ASSIGN_OR_RETURN(const RuleId rule, RuleOf(root_, ""));
  while (!pending_.empty() && !builder_.full()) {
    const Pending next = std::move(pending_.front());
    pending_.pop_front();
    const Status status =
        Emit(*next.schema, next.at, builder_.StartOf(next.rule), builder_.AcceptOf(next.rule));
    if (!status.ok()) return Annotate(status, "at " + (next.at.empty() ? "/" : Quote(next.at)));
  }
  return rule;
}

// The rule of a schema, emitted later where it is new: schemas may refer to themselves.
StatusOr<RuleId> SchemaLowering::RuleOf(const OrderedJson& schema, const std::string& at) {
  const auto [entry, inserted] = rules_.try_emplace(&schema, RuleId{-1});
  if (!inserted) return entry->second;
  entry->second = builder_.AddRule("schema " + (at.empty() ? "/" : at));
  pending_.push_back({&schema, at, entry->second});
  return entry->second;
}

// Keeps a schema that was made here.
StatusOr<const OrderedJson*> SchemaLowering::Keep(OrderedJson schema) {
  merged_bytes_ += DumpJson(schema).size();
  if (++num_merges_ > kMaxMerges || merged_bytes_ > kMaxMergedBytes) {
    return InvalidArgument("expected at most %d schemas that apply together, got more", kMaxMerges);
  }
  merged_.push_back(std::move(schema));
  return &merged_.back();
}

Status SchemaLowering::Emit(const OrderedJson& schema, const std::string& at, NodeId start,
                            NodeId accept) {
  if (schema.is_boolean()) {
    if (schema == true) builder_.Call(start, values_.AnyValue(), accept);
    return absl::OkStatus();  // nothing satisfies false
  }
  if (!schema.is_object()) {
    return InvalidArgument("expected a schema, got %s", DescribeJson(schema));
  }
  POLYAD_RETURN_IF_ERROR(CheckKeywords(schema));
  if (schema.contains("$ref") && NumAssertions(schema) == 1) {
    POLYAD_ASSIGN_OR_RETURN(const OrderedJson* target, Resolve(schema["$ref"]));
    POLYAD_ASSIGN_OR_RETURN(const RuleId rule,
                            RuleOf(*target, schema["$ref"].get<std::string>().substr(1)));
    builder_.Call(start, rule, accept);
    return absl::OkStatus();
  }
  if (schema.contains("$ref") || schema.contains("allOf")) {
    POLYAD_ASSIGN_OR_RETURN(OrderedJson flat, Flatten(schema, 0));
    POLYAD_ASSIGN_OR_RETURN(const OrderedJson* kept, Keep(std::move(flat)));
    return Emit(*kept, at, start, accept);
  }
  if (schema.contains("anyOf") || schema.contains("oneOf"))
    return Branches(schema, at, start, accept);
  if (schema.contains("enum") || schema.contains("const")) return Constants(schema, start, accept);
  return Types(schema, at, start, accept);
}

Status SchemaLowering::CheckKeywords(const OrderedJson& schema) {
  for (const auto& [keyword, value] : schema.items()) {
    if (IsAnnotation(keyword) || TypeOfKeyword(keyword) != nullptr) continue;
    return InvalidArgument("keyword %s: expected one that is served, got one that is not",
                           Quote(keyword));
  }
  return absl::OkStatus();
}

size_t SchemaLowering::NumAssertions(const OrderedJson& schema) {
  size_t count = 0;
  for (const auto& [keyword, value] : schema.items()) count += IsAnnotation(keyword) ? 0 : 1;
  return count;
}

StatusOr<const OrderedJson*> SchemaLowering::Resolve(const OrderedJson& reference) const {
  if (!reference.is_string()) return WrongKeywordType("$ref", "a string", reference);
  std::string_view rest = reference.get_ref<const std::string&>();
  if (!rest.starts_with('#') || (rest.size() > 1 && rest[1] != '/')) {
    return InvalidArgument("keyword '$ref': expected # or a JSON pointer behind it, got %s",
                           Quote(rest));
  }
  rest.remove_prefix(1);
  const OrderedJson* target = &root_;
  while (!rest.empty()) {
    rest.remove_prefix(1);
    const size_t end = std::min(rest.find('/'), rest.size());
    const std::string key = Unescape(rest.substr(0, end));
    rest.remove_prefix(end);
    const OrderedJson* next = nullptr;
    if (target->is_object() && target->contains(key)) next = &(*target)[key];
    if (target->is_array() && !key.empty() && key.size() < 6 &&
        key.find_first_not_of("0123456789") == key.npos &&
        static_cast<size_t>(std::stoi(key)) < target->size()) {
      next = &(*target)[static_cast<size_t>(std::stoi(key))];
    }
    if (next == nullptr) {
      return InvalidArgument("keyword '$ref': expected a place in the schema, got %s",
                             Quote(reference.get_ref<const std::string&>()));
    }
    target = next;
  }
  return target;
}

std::string SchemaLowering::Unescape(std::string_view token) {
  std::string key;
  for (size_t i = 0; i < token.size(); ++i) {
    const bool escaped = token[i] == '~' && i + 1 < token.size();
    key += !escaped ? token[i] : token[++i] == '1' ? '/' : '~';
  }
  return key;
}

// The schema without $ref and allOf at its top.
StatusOr<OrderedJson> SchemaLowering::Flatten(const OrderedJson& schema, int depth) {
  if (depth > kMaxMergeDepth || ++num_merges_ > kMaxMerges) {
    return InvalidArgument("expected schemas that apply together %d deep and %d in all at most",
                           kMaxMergeDepth, kMaxMerges);
  }
  if (!schema.is_object()) return schema;
  POLYAD_RETURN_IF_ERROR(CheckKeywords(schema));
  OrderedJson flat = schema;
  flat.erase("$ref");
  flat.erase("allOf");
  if (const auto reference = schema.find("$ref"); reference != schema.end()) {
    POLYAD_ASSIGN_OR_RETURN(const OrderedJson* target, Resolve(*reference));
    POLYAD_ASSIGN_OR_RETURN(const OrderedJson part, Flatten(*target, depth + 1));
    POLYAD_ASSIGN_OR_RETURN(flat, MergeSchemas(flat, part));
  }
  const auto parts = schema.find("allOf");
  if (parts == schema.end()) return flat;
  if (!parts->is_array() || parts->empty()) return WrongKeywordType("allOf", "schemas", *parts);
  for (const OrderedJson& part : *parts) {
    POLYAD_ASSIGN_OR_RETURN(const OrderedJson flat_part, Flatten(part, depth + 1));
    POLYAD_ASSIGN_OR_RETURN(flat, MergeSchemas(flat, flat_part));
    if (DumpJson(flat).size() > kMaxMergedBytes / 64) {
      return InvalidArgument("keyword 'allOf': expected at most %d bytes together",
                             kMaxMergedBytes / 64);
    }
  }
  return flat;
}

Status SchemaLowering::Branches(const OrderedJson& schema, const std::string& at, NodeId start,
                                NodeId accept) {
  if (schema.contains("anyOf") && schema.contains("oneOf")) {
    return InvalidArgument("keyword 'oneOf': expected no 'anyOf' beside it");
  }
  const char* keyword = schema.contains("anyOf") ? "anyOf" : "oneOf";
  const OrderedJson& branches = schema[keyword];
  if (!branches.is_array() || branches.empty())
    return WrongKeywordType(keyword, "schemas", branches);
  if (schema.contains("oneOf")) POLYAD_RETURN_IF_ERROR(CheckDisjoint(branches));
  OrderedJson rest = schema;
  rest.erase(keyword);
  for (size_t i = 0; i < branches.size(); ++i) {
    const OrderedJson* branch = &branches[i];
    if (NumAssertions(rest) > 0) {
      POLYAD_ASSIGN_OR_RETURN(const OrderedJson flat, Flatten(*branch, 0));
      POLYAD_ASSIGN_OR_RETURN(OrderedJson both, MergeSchemas(rest, flat));
      POLYAD_ASSIGN_OR_RETURN(branch, Keep(std::move(both)));
    }
    POLYAD_ASSIGN_OR_RETURN(const RuleId rule,
                            RuleOf(*branch, at + "/" + keyword + "/" + std::to_string(i)));
    builder_.Call(start, rule, accept);
  }
  return absl::OkStatus();
}

Status SchemaLowering::CheckDisjoint(const OrderedJson& branches) {
  if (branches.size() > kMaxOneOf) {
    return InvalidArgument("keyword 'oneOf': expected at most %d schemas, got %d", kMaxOneOf,
                           branches.size());
  }
  std::vector<OrderedJson> flat;
  for (const OrderedJson& branch : branches) {
    POLYAD_ASSIGN_OR_RETURN(OrderedJson one, Flatten(branch, 0));
    flat.push_back(std::move(one));
  }
  for (size_t i = 0; i < flat.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      if (AreDisjoint(flat[i], flat[j])) continue;
      return InvalidArgument(
          "keyword 'oneOf': expected schemas that types, constants or a required property tell "
          "apart, got %d and %d (anyOf takes any)",
          j, i);
    }
  }
  return absl::OkStatus();
}

StatusOr<RuleId> LowerJsonSchema(std::string_view schema, JsonValues& values) {
  const JsonLimits limits{.max_bytes = kMaxSchemaBytes, .max_depth = kMaxSchemaDepth};
  const StatusOr<OrderedJson> root = ParseOrderedJson(schema, "schema", limits);
  // A schema past a limit is as malformed as any other.
  if (!root.ok()) return absl::InvalidArgumentError(root.status().message());
  return SchemaLowering(*root, values).Lower();
}

}  // namespace polyad
