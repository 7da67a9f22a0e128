#pragma once

// UTF-8 at the byte level: decoding one code point at a time, replacing what is invalid, and the
// few character classes that tokenizers and templates ask about. Pure functions, any thread.
// Invalid input follows the Unicode "maximal subpart" rule (one U+FFFD per subpart), as Python's
// errors="replace" and Rust's lossy decoding do.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace polyad {

inline constexpr std::string_view kReplacementUtf8 = "\xEF\xBF\xBD";

// One step through bytes that may be anything. `length` is at least 1; a step that is not `valid`
// covers one maximal subpart, and `incomplete` says that the bytes end in the middle of a sequence
// that is well-formed so far.
struct Utf8Step {
  char32_t value = 0xFFFD;
  int length = 1;
  bool valid = false;
  bool incomplete = false;
};
Utf8Step StepUtf8(std::string_view rest);

bool IsValidUtf8(std::string_view bytes);

// The text with U+FFFD in place of every maximal invalid subpart.
std::string SanitizeUtf8(std::string_view bytes);

void AppendUtf8(char32_t value, std::string* out);
std::string Utf8FromChar(char32_t value);

// The length in bytes of the character whose first byte this is, in valid UTF-8.
inline int Utf8Length(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

// Where the character before `end` begins, in valid UTF-8; end > 0.
size_t PreviousUtf8(std::string_view text, size_t end);

size_t CountUtf8Chars(std::string_view text);

// Unicode White_Space, which is what \s means to the tokenizers.
bool IsUnicodeSpace(char32_t value);
// str.isspace of Python: White_Space and the four information separators.
bool IsPythonSpace(char32_t value);
// \w of a Unicode regular expression: letters, marks, decimal digits, connectors.
bool IsWordChar(char32_t value);

}  // namespace polyad
