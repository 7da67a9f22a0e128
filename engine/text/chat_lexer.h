#pragma once

// A chat template's source into tokens: text, and the names, literals and operators inside tags.
// White space is trimmed as transformers sets Jinja up: trim_blocks and lstrip_blocks, with - and +
// at a tag's edges, and without the source's last newline. Pure; bounded by the source. Source:
// Jinja 3.1, lexer.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/status.h"

namespace polyad {

struct ChatToken {
  enum class Kind {
    kData,
    kVariableBegin,
    kVariableEnd,
    kBlockBegin,
    kBlockEnd,
    kName,
    kInt,
    kFloat,
    kString,
    kOperator,
    kEnd
  };
  Kind kind = Kind::kEnd;
  std::string text = {};  // kString: its value
  int64_t integer = 0;
  double number = 0;
  int line = 0;
};

inline constexpr size_t kMaxChatTemplateBytes = size_t{256} << 10;

// Ends with a kEnd token.
StatusOr<std::vector<ChatToken>> LexChatTemplate(std::string_view source);

}  // namespace polyad
