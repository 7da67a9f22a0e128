#include "server/json_reader.h"

#include <optional>

#include "server/field_error.h"

namespace polyad {

Status WrongJsonType(const std::string& name, std::string_view expected, const Json& value) {
  return FieldError(name, expected, DescribeJson(value));
}

StatusOr<int64_t> JsonInt(const std::string& name, const Json& value, int64_t min, int64_t max) {
  std::optional<int64_t> number;
  if (value.is_number_unsigned()) {
    const auto wide = value.get<uint64_t>();
    number = wide > static_cast<uint64_t>(INT64_MAX) ? INT64_MAX : static_cast<int64_t>(wide);
  } else if (value.is_number_integer()) {
    number = value.get<int64_t>();
  }
  if (!number.has_value()) return WrongJsonType(name, "an integer", value);
  POLYAD_RETURN_IF_ERROR(CheckRange(name, *number, min, max));
  return *number;
}

StatusOr<int32_t> JsonInt32(const std::string& name, const Json& value) {
  POLYAD_ASSIGN_OR_RETURN(const int64_t wide, JsonInt(name, value, INT32_MIN, INT32_MAX));
  return static_cast<int32_t>(wide);
}

StatusOr<float> JsonFloat(const std::string& name, const Json& value) {
  if (!value.is_number()) return WrongJsonType(name, "a number", value);
  return static_cast<float>(value.get<double>());
}

StatusOr<bool> JsonBool(const std::string& name, const Json& value) {
  if (!value.is_boolean()) return WrongJsonType(name, "true or false", value);
  return value.get<bool>();
}

StatusOr<std::string> JsonString(const std::string& name, const Json& value) {
  if (!value.is_string()) return WrongJsonType(name, "a string", value);
  return value.get<std::string>();
}

Status AddJsonInts(const std::string& name, const Json& value,
                   google::protobuf::RepeatedField<int32_t>* out) {
  if (!value.is_array()) return WrongJsonType(name, "an array of integers", value);
  out->Reserve(static_cast<int>(value.size()));
  for (const Json& item : value) {
    POLYAD_ASSIGN_OR_RETURN(const int32_t id, JsonInt32(name, item));
    out->Add(id);
  }
  return absl::OkStatus();
}

Status ReadJsonBody(std::string_view body,
                    const std::function<Status(const std::string& name, const Json& value)>& read) {
  POLYAD_ASSIGN_OR_RETURN(const Json json, ParseJson(body, "body", kHttpBodyLimits));
  if (!json.is_object()) return FieldError("body", "an object", DescribeJson(json));
  for (const auto& [name, value] : json.items()) {
    if (!value.is_null()) POLYAD_RETURN_IF_ERROR(read(name, value));
  }
  return absl::OkStatus();
}

Status UnknownJsonField(const std::string& name) {
  return FieldError(name, "a field of this endpoint", "an unknown field");
}

}  // namespace polyad
