#pragma once

// JSON written by appending to a string, for answers that are made once per token. Any thread.

#include <cstdint>
#include <string>
#include <string_view>

namespace polyad {

void AppendJsonString(std::string_view text, std::string& out);  // quoted; `text` is UTF-8
void AppendJsonNumber(double value, std::string& out);           // null where not finite
inline void AppendJsonInt(int64_t value, std::string& out) { out += std::to_string(value); }

}  // namespace polyad
