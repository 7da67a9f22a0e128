#pragma once

// Python's string operations on marked text: each result byte keeps the mark of the byte it came
// from, and what replaces a user's text counts as the user's. Pure functions; characters are code
// points.

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "engine/text/marked_text.h"

namespace polyad {

enum class TextCase { kUpper, kLower, kCapitalize, kTitle };

// Without `chars`, white space as str.strip sees it; with it, any of its characters.
MarkedText StripText(const MarkedText& text, bool left, bool right,
                     std::optional<std::string_view> chars);
MarkedText ChangeCase(const MarkedText& text, TextCase to);

// The first `count` occurrences (all if negative). An empty `from` is the caller's to refuse.
MarkedText ReplaceText(const MarkedText& text, std::string_view from, const MarkedText& to,
                       int64_t count);

// str.split: by a separator, or by runs of white space if it is empty. At most `max_splits` unless
// negative.
std::vector<MarkedText> SplitText(const MarkedText& text, std::string_view separator,
                                  int64_t max_splits);
std::vector<MarkedText> SplitLines(const MarkedText& text);

// Where each character begins, and the end of the text.
std::vector<size_t> CharOffsets(const MarkedText& text);

}  // namespace polyad
