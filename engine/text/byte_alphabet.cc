#include "engine/text/byte_alphabet.h"

#include <array>
#include <cstddef>

#include "engine/text/utf8.h"

namespace polyad {

namespace {

constexpr size_t kNumChars = 0x144;  // the last byte without a printable form gets U+0143

struct Tables {
  std::array<std::string, 256> char_of_byte;
  std::array<int, kNumChars> byte_of_char;
};

bool StandsForItself(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) ||
         (byte >= 0xAE && byte <= 0xFF);
}

const Tables& GetTables() {
  static const Tables tables = [] {
    Tables made;
    made.byte_of_char.fill(-1);
    char32_t next = 0x100;
    for (int byte = 0; byte < 256; ++byte) {
      const char32_t value = StandsForItself(byte) ? static_cast<char32_t>(byte) : next++;
      made.char_of_byte[static_cast<size_t>(byte)] = Utf8FromChar(value);
      made.byte_of_char[value] = byte;
    }
    return made;
  }();
  return tables;
}

}  // namespace

std::string_view CharOfByte(unsigned char byte) { return GetTables().char_of_byte[byte]; }

std::optional<unsigned char> ByteOfChar(char32_t value) {
  if (value >= kNumChars) return std::nullopt;
  const int byte = GetTables().byte_of_char[value];
  if (byte < 0) return std::nullopt;
  return static_cast<unsigned char>(byte);
}

std::string BytesToAlphabet(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const char c : bytes) out += CharOfByte(static_cast<unsigned char>(c));
  return out;
}

std::string AlphabetToBytes(std::string_view token) {
  std::string out;
  for (size_t at = 0; at < token.size();) {
    const Utf8Step step = StepUtf8(token.substr(at));
    const std::optional<unsigned char> byte = step.valid ? ByteOfChar(step.value) : std::nullopt;
    if (!byte.has_value()) return std::string(token);
    out.push_back(static_cast<char>(*byte));
    at += static_cast<size_t>(step.length);
  }
  return out;
}

}  // namespace polyad
