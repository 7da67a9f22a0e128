#pragma once

// Calls of tools lowered to a byte grammar: each is kToolCallOpen, a line with a JSON object of the
// function's name and its arguments as their schema wants them, and kToolCallClose; several stand
// on lines of their own. The form is Hermes' and Qwen's (NousResearch, Hermes function calling).
// Pure, any thread. Errors: INVALID_ARGUMENT with the tool's name.

#include <vector>

#include "engine/base/status.h"
#include "engine/constraint/json_values.h"
#include "engine/request/constraint_spec.h"

namespace polyad {

inline constexpr int64_t kMaxTools = 128;

// The rule of whole outputs.
StatusOr<RuleId> LowerToolCalls(const std::vector<ToolForm>& tools, bool several,
                                JsonValues& values);

}  // namespace polyad
