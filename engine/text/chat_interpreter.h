#pragma once

// Renders a parsed chat template. Bounded in every direction: steps, nesting, memory, output. One
// rendering, one thread; the template is only read. Scopes follow Jinja: a loop's body and a macro
// have their own, an if has not.

#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/status.h"
#include "engine/text/chat_ast.h"
#include "engine/text/chat_builtins.h"

namespace polyad {

inline constexpr int64_t kMaxChatSteps = 400'000;  // 2,048 messages of 195 steps; 80 ms
inline constexpr size_t kChatHeapBytes = size_t{32} << 20;
inline constexpr int kMaxChatEvalDepth = 400;
inline constexpr int64_t kMaxChatRange = 100'000;

// Counts one level of recursion while it lives.
struct ChatDepthGuard {
  explicit ChatDepthGuard(int* depth) : depth_(depth) { ++*depth_; }
  ~ChatDepthGuard() { --*depth_; }
  ChatDepthGuard(const ChatDepthGuard&) = delete;
  ChatDepthGuard& operator=(const ChatDepthGuard&) = delete;
  int* depth_;
};

class ChatInterpreter {
 public:
  using Scope = std::map<std::string, ChatValue, std::less<>>;

  // `now_unix_s` serves strftime_now; without it the template sees no such function.
  ChatInterpreter(ChatHeap* heap, Scope globals, std::optional<int64_t> now_unix_s,
                  size_t max_output_bytes);

  StatusOr<MarkedText> Run(const ChatBlock& block);

 private:
  enum class Flow { kNormal, kBreak, kContinue };

  Status Step(int line);
  Status Emit(const MarkedText& text);
  StatusOr<Flow> ExecBlock(const ChatBlock& block);
  StatusOr<Flow> Exec(const ChatStatement& statement);
  StatusOr<Flow> ExecFor(const ChatStatement& statement);
  StatusOr<Flow> ExecIf(const ChatStatement& statement);
  Status ExecSet(const ChatStatement& statement);
  Status ExecMacro(const ChatStatement& statement);
  Status Assign(const std::vector<std::string>& names, const ChatValue& value);
  Status AssignOne(const std::string& name, const ChatValue& value);
  StatusOr<ChatValue> FilterItems(const ChatStatement& statement, const ChatValue& items);
  StatusOr<MarkedText> Capture(const ChatBlock& block);

  StatusOr<ChatValue> Eval(const ChatExpr& expr);
  StatusOr<ChatValue> EvalKind(const ChatExpr& expr);
  StatusOr<ChatValue> EvalList(const ChatExpr& expr);
  StatusOr<ChatValue> EvalDict(const ChatExpr& expr);
  StatusOr<ChatValue> EvalUnary(const ChatExpr& expr);
  StatusOr<ChatValue> EvalBinary(const ChatExpr& expr);
  StatusOr<ChatValue> Arithmetic(const std::string& op, const ChatValue& left,
                                 const ChatValue& right);
  StatusOr<ChatValue> Concat(const ChatValue& left, const ChatValue& right);
  StatusOr<ChatValue> EvalCompare(const ChatExpr& expr);
  StatusOr<ChatValue> EvalCondition(const ChatExpr& expr);
  StatusOr<ChatValue> EvalIndex(const ChatExpr& expr);
  StatusOr<ChatValue> EvalSlice(const ChatExpr& expr);
  StatusOr<ChatValue> EvalCall(const ChatExpr& expr);
  StatusOr<ChatValue> CallMacro(const ChatMacro& macro, const ChatArgs& args);
  StatusOr<ChatValue> CallGlobal(const std::string& name, const ChatArgs& args);
  StatusOr<ChatValue> Range(const ChatArgs& args);
  StatusOr<ChatValue> FormatNow(const ChatArgs& args);
  StatusOr<ChatArgs> EvalArgs(const ChatExpr& expr);
  ChatValue Lookup(std::string_view name) const;

  ChatHeap* heap_;
  std::optional<int64_t> now_unix_s_;
  size_t max_output_bytes_;
  std::vector<Scope> scopes_;
  size_t scope_floor_ =
      1;  // scopes below (but the globals) are not visible: a macro sees its own and the globals
  std::deque<ChatLoop> loops_;
  std::deque<ChatMacro> macros_;
  MarkedText* out_ = nullptr;
  int64_t steps_ = 0;
  int depth_ = 0;
  int loop_depth_ = 0;
};

}  // namespace polyad
