#pragma once

// Regular expressions of our own: the regular subset of RE2's and Python's syntax, parsed into a
// CharGraph that takes exactly the texts that match. Served: literals, ., classes, \d \w \s and
// their complements (ASCII), \t \n \r \f \v \xHH \uHHHH \x{H..}, groups (capturing, (?:), named),
// |,
// * + ? {m} {m,} {m,n} (lazy forms too: they match the same texts), and ^ $ at the two ends of a
// top-level alternative. Refused by name: look-around, back references, \b, \p, flags, possessive
// forms, and anchors elsewhere. Bounded by kMaxRegexDepth groups, kMaxRegexRepeat repeats and
// kMaxGrammarNodes nodes. Pure, any thread. Errors: INVALID_ARGUMENT with the byte offset.

#include <string_view>

#include "engine/base/status.h"
#include "engine/constraint/char_graph.h"

namespace polyad {

inline constexpr int kMaxRegexDepth = 64;
inline constexpr int64_t kMaxRegexRepeat = 10'000;

enum class RegexUse {
  kWhole,   // the expression is the whole text
  kSearch,  // it is found somewhere in the text, as JSON Schema's `pattern`
};

StatusOr<CharGraph> ParseRegex(std::string_view pattern, RegexUse use);

// [0-9], [A-Za-z0-9_] and white space, for others that read classes.
CharSet DigitChars();
CharSet WordChars();
CharSet SpaceChars();

}  // namespace polyad
