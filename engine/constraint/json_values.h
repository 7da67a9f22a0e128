#pragma once

// The parts of JSON that every schema shares, as rules made when they are first asked for: white
// space (none, one space, or a line break with at most kMaxJsonIndent spaces or tabs, so that
// nothing can be padded without end), any string, number, value, array and object. One builder, one
// thread.

#include <optional>

#include "engine/constraint/char_graph.h"
#include "engine/constraint/grammar.h"

namespace polyad {

inline constexpr int kMaxJsonIndent = 20;

class JsonValues {
 public:
  explicit JsonValues(GrammarBuilder& builder) : builder_(builder), chars_(builder) {}

  NodeId Space(NodeId from);
  // A comma or colon and the white space after it.
  NodeId Mark(NodeId from, char mark);
  // '[' or '{' and the white space after it; white space and ']' or '}'.
  NodeId Open(NodeId from, char bracket);
  NodeId Close(NodeId from, char bracket);

  RuleId AnyChar();  // one character of a string, however it is written
  RuleId AnyString();
  RuleId AnyNumber();
  RuleId AnyInteger();
  RuleId AnyValue();
  RuleId AnyArray();
  RuleId AnyObject();
  // Members `"any key": value`; the rule called for each value is given.
  NodeId Members(NodeId from, RuleId value);

  GrammarBuilder& builder() { return builder_; }
  CharRules& chars() { return chars_; }

 private:
  GrammarBuilder& builder_;
  CharRules chars_;
  std::optional<RuleId> space_;
  std::optional<RuleId> any_char_;
  std::optional<RuleId> any_string_;
  std::optional<RuleId> any_number_;
  std::optional<RuleId> any_integer_;
  std::optional<RuleId> any_value_;
  std::optional<RuleId> any_array_;
  std::optional<RuleId> any_object_;
};

}  // namespace polyad
