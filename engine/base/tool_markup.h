#pragma once

// How a model writes a call of a tool and reads its answer: Hermes' and Qwen's form, a JSON object
// {"name": ..., "arguments": {...}} between these marks. What prompts, constraints and the reader
// of outputs share.

#include <string_view>

namespace polyad {

inline constexpr std::string_view kToolCallOpen = "<tool_call>";
inline constexpr std::string_view kToolCallClose = "</tool_call>";
inline constexpr std::string_view kToolAnswerOpen = "<tool_response>";
inline constexpr std::string_view kToolAnswerClose = "</tool_response>";

}  // namespace polyad
