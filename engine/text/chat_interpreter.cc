#include "engine/text/chat_interpreter.h"

#include <utility>

namespace polyad {

namespace {

using Kind = ChatValue::Kind;
using Expr = ChatExpr::Kind;
using Stmt = ChatStatement::Kind;

}  // namespace

ChatInterpreter::ChatInterpreter(ChatHeap* heap, Scope globals, std::optional<int64_t> now_unix_s,
                                 size_t max_output_bytes)
    : heap_(heap), now_unix_s_(now_unix_s), max_output_bytes_(max_output_bytes) {
  scopes_.push_back(std::move(globals));
}

StatusOr<MarkedText> ChatInterpreter::Run(const ChatBlock& block) { return Capture(block); }

Status ChatInterpreter::Step(int line) {
  if (++steps_ > kMaxChatSteps)
    return ResourceExhausted("chat template, line %d: over %d steps", line, kMaxChatSteps);
  if (depth_ > kMaxChatEvalDepth)
    return ResourceExhausted("chat template, line %d: recursion", line);
  return absl::OkStatus();
}

Status ChatInterpreter::Emit(const MarkedText& text) {
  POLYAD_RETURN_IF_ERROR(heap_->Charge(text.text.size()));
  if (out_->text.size() + text.text.size() > max_output_bytes_) {
    return ResourceExhausted("chat template: over %d bytes of output", max_output_bytes_);
  }
  out_->Append(text);
  return absl::OkStatus();
}

StatusOr<MarkedText> ChatInterpreter::Capture(const ChatBlock& block) {
  MarkedText captured;
  MarkedText* outer = std::exchange(out_, &captured);
  const StatusOr<Flow> flow = ExecBlock(block);
  out_ = outer;
  if (!flow.ok()) return flow.status();
  return captured;
}

StatusOr<ChatInterpreter::Flow> ChatInterpreter::ExecBlock(const ChatBlock& block) {
  const ChatDepthGuard guard(&depth_);
  for (const auto& statement : block) {
    POLYAD_RETURN_IF_ERROR(Step(statement->line));
    POLYAD_ASSIGN_OR_RETURN(const Flow flow, Exec(*statement));
    if (flow != Flow::kNormal) return flow;
  }
  return Flow::kNormal;
}

StatusOr<ChatInterpreter::Flow> ChatInterpreter::Exec(const ChatStatement& statement) {
  switch (statement.kind) {
    case Stmt::kText:
      POLYAD_RETURN_IF_ERROR(Emit({.text = statement.text}));
      return Flow::kNormal;
    case Stmt::kPrint: {
      POLYAD_ASSIGN_OR_RETURN(const ChatValue value, Eval(*statement.exprs[0]));
      POLYAD_ASSIGN_OR_RETURN(const MarkedText text, PrintValue(value));
      POLYAD_RETURN_IF_ERROR(Emit(text));
      return Flow::kNormal;
    }
    case Stmt::kFor:
      return ExecFor(statement);
    case Stmt::kIf:
      return ExecIf(statement);
    case Stmt::kSet:
      POLYAD_RETURN_IF_ERROR(ExecSet(statement));
      return Flow::kNormal;
    case Stmt::kSetBlock: {
      POLYAD_ASSIGN_OR_RETURN(MarkedText text, Capture(statement.blocks[0]));
      POLYAD_ASSIGN_OR_RETURN(const ChatValue value, heap_->Text(std::move(text)));
      POLYAD_RETURN_IF_ERROR(AssignOne(statement.names[0], value));
      return Flow::kNormal;
    }
    case Stmt::kMacro:
      POLYAD_RETURN_IF_ERROR(ExecMacro(statement));
      return Flow::kNormal;
    case Stmt::kGroup:
      return ExecBlock(statement.blocks[0]);
    case Stmt::kBreak:
      return Flow::kBreak;
    case Stmt::kContinue:
      return Flow::kContinue;
  }
  return Internal("chat template: statement %d", static_cast<int>(statement.kind));
}

// The items that pass the loop's `if`; `loop` counts only those.
StatusOr<ChatValue> ChatInterpreter::FilterItems(const ChatStatement& statement,
                                                 const ChatValue& items) {
  if (statement.exprs.size() < 2) return items;
  std::vector<ChatValue> kept;
  scopes_.emplace_back();
  for (const ChatValue& item : *items.list) {
    POLYAD_RETURN_IF_ERROR(Step(statement.line));
    POLYAD_RETURN_IF_ERROR(Assign(statement.names, item));
    POLYAD_ASSIGN_OR_RETURN(const ChatValue passes, Eval(*statement.exprs[1]));
    if (passes.IsTrue()) kept.push_back(item);
  }
  scopes_.pop_back();
  return heap_->List(std::move(kept));
}

StatusOr<ChatInterpreter::Flow> ChatInterpreter::ExecFor(const ChatStatement& statement) {
  POLYAD_ASSIGN_OR_RETURN(const ChatValue iterable, Eval(*statement.exprs[0]));
  POLYAD_ASSIGN_OR_RETURN(ChatValue items, ChatItems(heap_, iterable));
  POLYAD_ASSIGN_OR_RETURN(items, FilterItems(statement, items));
  if (items.list->empty()) {
    return statement.blocks.size() > 1 ? ExecBlock(statement.blocks[1])
                                       : StatusOr<Flow>(Flow::kNormal);
  }
  const ChatDepthGuard guard(&loop_depth_);
  POLYAD_RETURN_IF_ERROR(heap_->Charge(sizeof(ChatLoop)));
  loops_.push_back({.items = items.list, .index = 0, .depth = loop_depth_});
  ChatLoop& loop = loops_.back();
  for (; loop.index < items.list->size(); ++loop.index) {
    POLYAD_RETURN_IF_ERROR(Step(statement.line));
    scopes_.emplace_back();
    POLYAD_RETURN_IF_ERROR(AssignOne("loop", {.kind = Kind::kLoop, .loop = &loop}));
    POLYAD_RETURN_IF_ERROR(Assign(statement.names, (*items.list)[loop.index]));
    POLYAD_ASSIGN_OR_RETURN(const Flow flow, ExecBlock(statement.blocks[0]));
    scopes_.pop_back();
    if (flow == Flow::kBreak) break;
  }
  return Flow::kNormal;
}

StatusOr<ChatInterpreter::Flow> ChatInterpreter::ExecIf(const ChatStatement& statement) {
  for (size_t i = 0; i < statement.exprs.size(); ++i) {
    POLYAD_ASSIGN_OR_RETURN(const ChatValue condition, Eval(*statement.exprs[i]));
    if (condition.IsTrue()) return ExecBlock(statement.blocks[i]);
  }
  if (statement.blocks.size() > statement.exprs.size()) return ExecBlock(statement.blocks.back());
  return Flow::kNormal;
}

Status ChatInterpreter::ExecSet(const ChatStatement& statement) {
  POLYAD_ASSIGN_OR_RETURN(const ChatValue value, Eval(*statement.exprs[0]));
  return Assign(statement.names, value);
}

Status ChatInterpreter::ExecMacro(const ChatStatement& statement) {
  POLYAD_RETURN_IF_ERROR(heap_->Charge(sizeof(ChatMacro)));
  macros_.push_back({.statement = &statement});
  return AssignOne(statement.text, {.kind = Kind::kMacro, .macro = &macros_.back()});
}

Status ChatInterpreter::Assign(const std::vector<std::string>& names, const ChatValue& value) {
  if (names.size() == 1) return AssignOne(names[0], value);
  POLYAD_ASSIGN_OR_RETURN(const ChatValue items, ChatItems(heap_, value));
  if (items.list->size() != names.size()) {
    return InvalidArgument("chat template: %d names for %d values", names.size(),
                           items.list->size());
  }
  for (size_t i = 0; i < names.size(); ++i)
    POLYAD_RETURN_IF_ERROR(AssignOne(names[i], (*items.list)[i]));
  return absl::OkStatus();
}

Status ChatInterpreter::AssignOne(const std::string& name, const ChatValue& value) {
  POLYAD_RETURN_IF_ERROR(heap_->Charge(8));
  const size_t dot = name.find('.');
  if (dot == std::string::npos) {
    scopes_.back().insert_or_assign(name, value);
    return absl::OkStatus();
  }
  const ChatValue object = Lookup(std::string_view(name).substr(0, dot));
  const std::string attribute = name.substr(dot + 1);
  if (!object.Is(Kind::kNamespace)) {
    return InvalidArgument("chat template: cannot set %s: only a namespace's attributes can be set",
                           name);
  }
  for (auto& [key, slot] : object.dict->entries) {
    if (key.text->text == attribute) {
      slot = value;
      return absl::OkStatus();
    }
  }
  POLYAD_ASSIGN_OR_RETURN(const ChatValue key, heap_->Text(attribute));
  object.dict->entries.emplace_back(key, value);
  return absl::OkStatus();
}

ChatValue ChatInterpreter::Lookup(std::string_view name) const {
  for (size_t i = scopes_.size(); i > scope_floor_; --i) {
    const auto found = scopes_[i - 1].find(name);
    if (found != scopes_[i - 1].end()) return found->second;
  }
  const auto found = scopes_[0].find(name);
  return found == scopes_[0].end() ? ChatValue{} : found->second;
}

StatusOr<ChatArgs> ChatInterpreter::EvalArgs(const ChatExpr& expr) {
  ChatArgs args;
  for (const ChatExprPtr& arg : expr.args) {
    POLYAD_ASSIGN_OR_RETURN(const ChatValue value, Eval(*arg));
    args.positional.push_back(value);
  }
  for (const auto& [name, arg] : expr.named_args) {
    POLYAD_ASSIGN_OR_RETURN(const ChatValue value, Eval(*arg));
    args.named.emplace_back(name, value);
  }
  return args;
}

StatusOr<ChatValue> ChatInterpreter::EvalCall(const ChatExpr& expr) {
  const ChatExpr& callee = *expr.children[0];
  POLYAD_ASSIGN_OR_RETURN(const ChatArgs args, EvalArgs(expr));
  if (callee.kind == Expr::kAttribute) {
    POLYAD_ASSIGN_OR_RETURN(const ChatValue object, Eval(*callee.children[0]));
    return CallChatMethod(heap_, object, callee.name, args);
  }
  if (callee.kind != Expr::kName)
    return InvalidArgument("chat template, line %d: a call of no function", expr.line);
  const ChatValue function = Lookup(callee.name);
  if (function.Is(Kind::kMacro)) return CallMacro(*function.macro, args);
  if (!function.Is(Kind::kUndefined))
    return InvalidArgument("chat template: %s is no function", callee.name);
  return CallGlobal(callee.name, args);
}

StatusOr<ChatValue> ChatInterpreter::CallMacro(const ChatMacro& macro, const ChatArgs& args) {
  const ChatDepthGuard guard(&depth_);
  const ChatStatement& statement = *macro.statement;
  POLYAD_RETURN_IF_ERROR(Step(statement.line));
  if (args.positional.size() > statement.names.size()) {
    return InvalidArgument("chat template: macro %s: too many arguments", statement.text);
  }
  for (const auto& named : args.named) {
    bool known = false;
    for (const std::string& name : statement.names) known = known || name == named.first;
    if (!known)
      return InvalidArgument("chat template: macro %s: no parameter %s", statement.text,
                             named.first);
  }
  const size_t outer_floor = std::exchange(scope_floor_, scopes_.size());
  scopes_.emplace_back();
  for (size_t i = 0; i < statement.names.size(); ++i) {
    ChatValue value;
    if (const ChatValue* given = args.Get(i, statement.names[i])) {
      value = *given;
    } else if (statement.exprs[i] != nullptr) {
      POLYAD_ASSIGN_OR_RETURN(value, Eval(*statement.exprs[i]));
    }
    POLYAD_RETURN_IF_ERROR(AssignOne(statement.names[i], value));
  }
  POLYAD_ASSIGN_OR_RETURN(MarkedText text, Capture(statement.blocks[0]));
  scopes_.pop_back();
  scope_floor_ = outer_floor;
  return heap_->Text(std::move(text));
}

}  // namespace polyad
