#pragma once

// Tools in a chat template: the values that templates see, as transformers gives them ("tools" as
// {"type": "function", "function": {...}}, a message's "tool_calls" with their arguments as
// objects), and for templates that know no tools the same facts as plain messages in Hermes' form.
// All that a client wrote stays the user's text. Pure, any thread. Errors: INVALID_ARGUMENT for
// what is no JSON object, RESOURCE_EXHAUSTED past the heap.

#include <vector>

#include "engine/base/status.h"
#include "engine/text/chat_template.h"
#include "engine/text/chat_value.h"

namespace polyad {

// None where there are no tools.
StatusOr<ChatValue> ToolList(ChatHeap* heap, const std::vector<ChatTool>& tools);
StatusOr<ChatValue> ToolCallList(ChatHeap* heap, const std::vector<ChatToolCall>& calls);

// Whether anything in it is of tools.
bool SpeaksOfTools(const ChatInput& input);
// The messages for a template that reads none: the tools at the end of the system message (or in
// one made for them), calls in the assistant's text, answers as the user's.
StatusOr<std::vector<ChatMessage>> ToolsAsText(const ChatInput& input);

}  // namespace polyad
