#pragma once

// JSON values of an HTTP body: the field's name and type are settled here, its range in the codecs.
// Errors: INVALID_ARGUMENT naming the field.

#include <google/protobuf/repeated_field.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "engine/base/status.h"
#include "engine/io/json.h"

namespace polyad {

inline constexpr JsonLimits kHttpBodyLimits{.max_bytes = (4 << 20) + (64 << 10),
                                            .max_depth = 40,  // a schema's 32 within the body
                                            .max_values = 1 << 20,
                                            .max_members = 4096};

Status WrongJsonType(const std::string& name, std::string_view expected, const Json& value);

StatusOr<int64_t> JsonInt(const std::string& name, const Json& value, int64_t min, int64_t max);
StatusOr<int32_t> JsonInt32(const std::string& name, const Json& value);
// Out of float's range: infinite.
StatusOr<float> JsonFloat(const std::string& name, const Json& value);
StatusOr<bool> JsonBool(const std::string& name, const Json& value);
StatusOr<std::string> JsonString(const std::string& name, const Json& value);
Status AddJsonInts(const std::string& name, const Json& value,
                   google::protobuf::RepeatedField<int32_t>* out);

// Hands every member of the object that `body` is to `read`; a member that is null is absent.
Status ReadJsonBody(std::string_view body,
                    const std::function<Status(const std::string& name, const Json& value)>& read);
Status UnknownJsonField(const std::string& name);

}  // namespace polyad
