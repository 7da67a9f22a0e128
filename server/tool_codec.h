#pragma once

// The tools of a chat: what a request says of them, bounded, for the template and for the
// constraint. Pure functions, any thread. Errors: INVALID_ARGUMENT naming the field.

#include <vector>

#include "engine/base/status.h"
#include "engine/request/request.h"
#include "polyad/v1/inference.pb.h"

namespace polyad {

inline constexpr int64_t kMaxChatTools = 128;  // and calls of one message
inline constexpr int64_t kMaxToolNameBytes = 64;
inline constexpr int64_t kMaxToolCallIdBytes = 256;

// Whether a function may be called so: [A-Za-z0-9_-]{1,64}.
bool IsToolName(std::string_view name);

StatusOr<std::vector<ChatFunction>> DecodeTools(const v1::Chat& chat);
// What a message has beside role and content.
Status DecodeToolParts(const v1::ChatMessage& message, ChatTurn& turn);
// Of all messages and tools, what a prompt may be large by.
size_t ContentBytes(const v1::Chat& chat);
// Of Constraint.tool_calls: calls of the chat's tools.
StatusOr<ConstraintSpec> DecodeToolConstraint(const v1::GenerateRequest& request);

}  // namespace polyad
