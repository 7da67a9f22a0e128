#pragma once

// OpenAI's response_format and vLLM's fields for structured output (guided_json, guided_regex,
// guided_choice, guided_grammar, and structured_outputs with json, json_object, regex, choice,
// grammar) -> Constraint. At most one of them may ask for something. A schema keeps the order of
// its properties, so the body is read in order. Source: OpenAI API reference (structured outputs),
// vLLM 0.11. Pure, any thread. Errors: INVALID_ARGUMENT naming the field.

#include <string>
#include <string_view>
#include <vector>

#include "engine/base/status.h"
#include "engine/io/json.h"
#include "polyad/v1/inference.pb.h"

namespace polyad {

// Whether ReadConstraint is who reads the field, and all of those.
bool IsConstraintField(std::string_view name);
std::vector<std::string> ConstraintFields();

// `body`: of the whole request.
Status ReadConstraint(const OrderedJson& body, v1::GenerateRequest& out);

}  // namespace polyad
