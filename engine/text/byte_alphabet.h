#pragma once

// GPT-2's byte alphabet: each of the 256 bytes has a printable character that stands for it in the
// vocabulary. Pure tables, any thread. Source: GPT-2's encoder (Radford et al. 2019), as
// tokenizers' ByteLevel has it.

#include <optional>
#include <string>
#include <string_view>

namespace polyad {

// The UTF-8 of the character that stands for a byte (1 or 2 bytes long).
std::string_view CharOfByte(unsigned char byte);

// The byte that a character stands for, if any.
std::optional<unsigned char> ByteOfChar(char32_t value);

// Every byte's character, joined.
std::string BytesToAlphabet(std::string_view bytes);

// The bytes that a token's characters stand for; the token itself if any of them stands for none.
std::string AlphabetToBytes(std::string_view token);

}  // namespace polyad
