// Any bytes as tokenizer.json and as text: a status or ids, never a crash; what loads must encode
// and decode.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "engine/text/detokenizer.h"
#include "engine/text/tokenizer_json.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  // The file, then (after a zero byte) the text to encode.
  const size_t split = std::min(input.find('\0'), input.size());
  const auto tokenizer = polyad::LoadTokenizerJson(input.substr(0, split), "");
  if (!tokenizer.ok()) return 0;
  const std::string_view text = input.substr(split);
  for (const bool parse_special : {false, true}) {
    const auto ids =
        (*tokenizer)->Encode(text, {.add_special = true, .parse_special = parse_special});
    if (ids.ok()) polyad::Decode(**tokenizer, *ids, true);
  }
  return 0;
}
