#pragma once

// The grammar of chat templates: the subset of Jinja that models' templates use. What is not served
// is refused by its name, at load and not in the middle of a request. Pure; bounded by the source
// and by kMaxChatDepth.

#include <string_view>

#include "engine/base/status.h"
#include "engine/text/chat_ast.h"

namespace polyad {

StatusOr<ChatBlock> ParseChatTemplate(std::string_view source);

}  // namespace polyad
