#pragma once

// OpenAI's tools in a chat body -> Chat.tools, Constraint.tool_calls and ChatMessage.tool_calls.
// Names and JSON types are settled here, the rest in tool_codec.h. Pure functions, any thread.
// Errors: INVALID_ARGUMENT naming the field.

#include <cstdint>
#include <string>

#include "engine/base/status.h"
#include "engine/io/json.h"
#include "polyad/v1/inference.pb.h"

namespace polyad {

struct ToolChoice {
  enum class Kind { kAuto, kNone, kRequired, kNamed };
  Kind kind = Kind::kAuto;
  std::string name = {};  // of kNamed
};

StatusOr<ToolChoice> ReadToolChoice(const std::string& field, const Json& value);
// Their order, and that of their properties, means something.
Status ReadTools(const std::string& field, const OrderedJson& value, v1::Chat& chat);
Status ReadToolCalls(const std::string& field, const Json& value, v1::ChatMessage& message);

// Makes of the chat's tools what the choice says: none of them, or a constraint. -> how many calls
// are to be read out of an answer at most; 0: none are looked for.
StatusOr<int64_t> ApplyToolChoice(const ToolChoice& choice, bool parallel,
                                  v1::GenerateRequest& request);

}  // namespace polyad
