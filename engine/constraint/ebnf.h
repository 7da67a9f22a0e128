#pragma once

// Grammars in EBNF, in the two spellings that clients send: GBNF (`name ::= ...`, rule `root`,
// [a-z] is a character class) and Lark's (`name: ...`, rule `start`, [x] is optional, /regex/).
// Shared: "text" with escapes, ( ), |, * + ?, {m} {m,} {m,n}, and comments (#, in Lark //). Lark
// also: "a".."z", ~m, ~m..n, `-> alias` and the marks ? and ! before a name, which change no text.
// Refused by name: %directives, literals with flags, templates, priorities. Pure, any thread.
// Errors: INVALID_ARGUMENT with the line; left recursion is Grammar's to refuse.

#include <string_view>

#include "engine/base/status.h"
#include "engine/constraint/char_graph.h"

namespace polyad {

inline constexpr int kMaxEbnfDepth = 64;  // nested groups

// The rule of whole texts.
StatusOr<RuleId> LowerEbnf(std::string_view text, GrammarBuilder& builder, CharRules& chars);

}  // namespace polyad
