#include "server/openai_constraint.h"

#include <algorithm>
#include <array>
#include <string>

#include "engine/request/constraint_spec.h"
#include "server/field_error.h"

namespace polyad {
namespace {

constexpr std::array<std::string_view, 6> kFields = {"response_format", "guided_json",
                                                     "guided_regex",    "guided_choice",
                                                     "guided_grammar",  "structured_outputs"};

Status WrongType(const std::string& name, std::string_view expected, const OrderedJson& value) {
  return FieldError(name, expected, DescribeJson(value));
}

StatusOr<std::string> AsString(const std::string& name, const OrderedJson& value) {
  if (!value.is_string()) return WrongType(name, "a string", value);
  return value.get<std::string>();
}

// A schema comes as JSON, or as a string of it.
StatusOr<std::string> AsSchema(const std::string& name, const OrderedJson& value) {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_object() && !value.is_boolean()) return WrongType(name, "a JSON schema", value);
  return value.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
}

class ConstraintReader {
 public:
  explicit ConstraintReader(v1::GenerateRequest& out) : out_(out) {}

  Status Read(const std::string& name, const OrderedJson& value) {
    if (name == "response_format") return ResponseFormat(name, value);
    if (name == "structured_outputs") return StructuredOutputs(name, value);
    return Form(name, name.substr(std::string_view("guided_").size()), value);
  }

 private:
  // vLLM's forms by their names there.
  Status Form(const std::string& name, std::string_view form, const OrderedJson& value) {
    POLYAD_RETURN_IF_ERROR(CheckFirst(name));
    v1::Constraint& constraint = *out_.mutable_constraint();
    if (form == "json") {
      POLYAD_ASSIGN_OR_RETURN(*constraint.mutable_json_schema(), AsSchema(name, value));
    } else if (form == "regex") {
      POLYAD_ASSIGN_OR_RETURN(*constraint.mutable_regex(), AsString(name, value));
    } else if (form == "grammar") {
      POLYAD_ASSIGN_OR_RETURN(*constraint.mutable_grammar(), AsString(name, value));
    } else if (form == "json_object") {
      if (!value.is_boolean()) return WrongType(name, "true or false", value);
      if (value == true) {
        constraint.set_json_object(true);
      } else {
        constraint.clear_json_object();
      }
    } else {
      if (!value.is_array()) return WrongType(name, "an array of strings", value);
      POLYAD_RETURN_IF_ERROR(CheckCount(name, value.size(), kMaxChoiceOptions, "strings"));
      constraint.mutable_choice();
      for (const OrderedJson& option : value) {
        POLYAD_ASSIGN_OR_RETURN(*constraint.mutable_choice()->add_options(),
                                AsString(name, option));
      }
    }
    return absl::OkStatus();
  }

  Status CheckFirst(const std::string& name) const {
    if (out_.constraint().kind_case() == v1::Constraint::KIND_NOT_SET) return absl::OkStatus();
    return FieldError(name, "one constraint", "another beside it");
  }

  Status StructuredOutputs(const std::string& name, const OrderedJson& value) {
    if (!value.is_object()) return WrongType(name, "an object", value);
    for (const auto& [form, member] : value.items()) {
      if (member.is_null()) continue;
      const std::string path = name + "." + form;
      constexpr std::array<std::string_view, 5> kForms = {"json", "json_object", "regex", "choice",
                                                          "grammar"};
      if (std::find(kForms.begin(), kForms.end(), form) == kForms.end()) {
        return FieldError(path, "json, json_object, regex, choice or grammar", "another field");
      }
      POLYAD_RETURN_IF_ERROR(Form(path, form, member));
    }
    return absl::OkStatus();
  }

  Status ResponseFormat(const std::string& name, const OrderedJson& value) {
    if (!value.is_object()) return WrongType(name, "an object", value);
    const auto type = value.find("type");
    if (type == value.end() || !type->is_string()) {
      return FieldError(name + ".type", "text, json_object or json_schema", "none");
    }
    if (*type == "text") {
      out_.mutable_constraint();  // none, whatever the adapter's default is
      return absl::OkStatus();
    }
    if (*type == "json_object") return Form(name, "json_object", true);
    if (*type != "json_schema") {
      return FieldError(name + ".type", "text, json_object or json_schema",
                        type->get<std::string>());
    }
    const std::string path = name + ".json_schema";
    const auto wrapper = value.find("json_schema");
    if (wrapper == value.end() || !wrapper->is_object()) {
      return FieldError(path, "an object with a schema", "none");
    }
    const auto schema = wrapper->find("schema");
    if (schema == wrapper->end() || schema->is_null()) {
      return FieldError(path + ".schema", "a JSON schema", "none");
    }
    return Form(path + ".schema", "json", *schema);
  }

  v1::GenerateRequest& out_;
};

}  // namespace

std::vector<std::string> ConstraintFields() { return {kFields.begin(), kFields.end()}; }

bool IsConstraintField(std::string_view name) {
  return std::find(kFields.begin(), kFields.end(), name) != kFields.end();
}

Status ReadConstraint(const OrderedJson& body, v1::GenerateRequest& out) {
  ConstraintReader reader(out);
  for (const auto& [name, value] : body.items()) {
    if (value.is_null() || !IsConstraintField(name)) continue;
    POLYAD_RETURN_IF_ERROR(reader.Read(name, value));
  }
  return absl::OkStatus();
}

}  // namespace polyad
