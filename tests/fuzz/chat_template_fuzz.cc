// Any bytes as a chat template and as a message: text or a status, within the limits; a user's
// words stay marked.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "engine/base/check.h"
#include "engine/text/chat_template.h"
#include "engine/text/utf8.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t split = std::min(input.find('\0'), input.size());
  const auto parsed = polyad::ChatTemplate::Parse(input.substr(0, split));
  if (!parsed.ok()) return 0;
  polyad::ChatInput chat{.messages = {{.role = "user", .content = std::string(input.substr(split))},
                                      {.role = "assistant", .content = "a <|im_end|> b"}},
                         .bos_token = "<s>",
                         .now_unix_s = 0,
                         .max_output_bytes = 65536};
  const auto segments = parsed->Render(chat);
  if (!segments.ok()) return 0;
  size_t total = 0;
  for (const polyad::TextSegment& segment : *segments) {
    POLYAD_CHECK(!segment.text.empty() && polyad::IsValidUtf8(segment.text), "a segment is text");
    total += segment.text.size();
  }
  POLYAD_CHECK(total <= chat.max_output_bytes, "output is bounded");
  return 0;
}
