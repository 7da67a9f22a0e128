#pragma once

// A parsed chat template. Trees are at most kMaxChatDepth deep (so recursion over them is safe) and
// const once parsed; any number of renderings may read one. Names, attributes and operators are
// kept as written.

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/text/chat_value.h"

namespace polyad {

inline constexpr int kMaxChatDepth = 64;
// Chains such as a + b + c + ... lean to the left: deeper than nesting, but still bounded.
inline constexpr int kMaxChatExprDepth = 192;

struct ChatExpr {
  enum class Kind {
    kLiteral,  // value, or `name` as a string
    kString,
    kName,
    kList,       // also tuples
    kDict,       // children: key, value, key, value ...
    kUnary,      // name: - + not
    kBinary,     // name: + - * / // % ** ~ and or
    kCompare,    // name: == != < > <= >= in "not in"
    kCondition,  // children: then, condition, [else]
    kAttribute,  // child.name
    kIndex,      // child[child]
    kSlice,      // child[from:to:step]; absent parts are null
    kCall,       // child(args)
    kFilter,     // child | name(args)
    kTest,       // child is name(args)
  };
  Kind kind = Kind::kLiteral;
  int line = 0;
  int depth = 1;
  std::string name = {};
  ChatValue value = {};
  bool negated = false;  // kTest: is not
  std::vector<std::unique_ptr<ChatExpr>> children = {};
  std::vector<std::unique_ptr<ChatExpr>> args = {};
  std::vector<std::pair<std::string, std::unique_ptr<ChatExpr>>> named_args = {};
};
using ChatExprPtr = std::unique_ptr<ChatExpr>;

struct ChatStatement;
using ChatBlock = std::vector<std::unique_ptr<ChatStatement>>;

struct ChatStatement {
  enum class Kind { kText, kPrint, kFor, kIf, kSet, kSetBlock, kMacro, kGroup, kBreak, kContinue };
  Kind kind = Kind::kText;
  int line = 0;
  std::string text = {};  // kText; kMacro: its name
  std::vector<std::string> names =
      {};  // kFor, kSet: targets ("ns.attribute" for one); kMacro: parameters
  std::vector<ChatExprPtr> exprs =
      {};  // kPrint, kSet: value; kFor: iterable, [filter]; kIf: conditions; kMacro: defaults
  std::vector<ChatBlock> blocks =
      {};  // kIf: one per condition, [else]; kFor: body, [else]; others: body
};

struct ChatMacro {
  const ChatStatement* statement = nullptr;
};

}  // namespace polyad
