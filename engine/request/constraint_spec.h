#pragma once

// What form a client wants the output to have, as it was asked for: a JSON schema, a regular
// expression, one of some strings, a grammar, calls of tools. Sizes are checked at the edge; the
// room engine/constraint makes an automaton of it and refuses what it cannot hold.

#include <cstdint>
#include <string>
#include <vector>

namespace polyad {

inline constexpr int64_t kMaxSchemaBytes = 64 << 10;
inline constexpr int64_t kMaxRegexBytes = 4 << 10;
inline constexpr int64_t kMaxGrammarBytes = 64 << 10;
inline constexpr int64_t kMaxChoiceOptions = 256;
inline constexpr int64_t kMaxChoiceBytes = 1 << 10;  // of one option

// A function that may be called: [A-Za-z0-9_-]+ and a JSON schema of its arguments.
struct ToolForm {
  std::string name;
  std::string parameters;
};

struct ConstraintSpec {
  enum class Kind { kNone, kJsonSchema, kJsonObject, kRegex, kChoice, kGrammar, kToolCalls };
  Kind kind = Kind::kNone;
  std::string text = {};                  // the schema, expression or grammar
  std::vector<std::string> options = {};  // of kChoice
  std::vector<ToolForm> tools = {};       // of kToolCalls
  bool several = false;                   // calls, of kToolCalls

  bool empty() const { return kind == Kind::kNone; }
};

}  // namespace polyad
