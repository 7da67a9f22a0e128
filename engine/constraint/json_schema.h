#pragma once

// A JSON schema (the part of draft 2020-12 and draft 7 in docs/structured_output.md) lowered to a
// byte grammar whose every text is a JSON document that the schema accepts. What is emitted is a
// readable subset: properties in the order they are declared, undeclared ones only where
// additionalProperties asks for them, numbers of bounded length, white space within bounds. A
// keyword that would change the meaning and is not served is refused by name. Pure, any thread.
// Errors: INVALID_ARGUMENT with the JSON pointer of the schema.

#include <string_view>

#include "engine/base/status.h"
#include "engine/constraint/json_values.h"

namespace polyad {

inline constexpr int64_t kMaxSchemaDepth = 32;  // nested JSON values

// The rule of whole documents.
StatusOr<RuleId> LowerJsonSchema(std::string_view schema, JsonValues& values);

}  // namespace polyad
