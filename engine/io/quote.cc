#include "engine/io/quote.h"

#include "absl/strings/str_format.h"

namespace polyad {

namespace {
constexpr size_t kMaxQuoted = 96;
}  // namespace

std::string Quote(std::string_view text) {
  std::string quoted = "'";
  for (const char c : text.substr(0, kMaxQuoted)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte < 0x7f && c != '\'' && c != '\\') {
      quoted += c;
    } else {
      quoted += absl::StrFormat("\\x%02x", byte);
    }
  }
  if (text.size() > kMaxQuoted) quoted += "...";
  quoted += "'";
  return quoted;
}

}  // namespace polyad
