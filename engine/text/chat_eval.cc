// The expressions of chat_interpreter.h: operators, indexes and the global functions.

#include <algorithm>
#include <array>
#include <cmath>
#include <ctime>
#include <utility>

#include "engine/text/chat_interpreter.h"
#include "engine/text/chat_strings.h"

namespace polyad {

namespace {

using Kind = ChatValue::Kind;
using Expr = ChatExpr::Kind;

constexpr size_t kMaxDateFormatBytes = 64;
constexpr int64_t kMaxRepeat = 4096;

StatusOr<ChatValue> IntArithmetic(const std::string& op, int64_t a, int64_t b) {
  int64_t result = 0;
  bool overflow = false;
  if (op == "+") {
    overflow = __builtin_add_overflow(a, b, &result);
  } else if (op == "-") {
    overflow = __builtin_sub_overflow(a, b, &result);
  } else if (op == "*") {
    overflow = __builtin_mul_overflow(a, b, &result);
  } else {
    if (b == 0) return InvalidArgument("chat template: division by zero");
    if (op == "/") return ChatValue::Float(static_cast<double>(a) / static_cast<double>(b));
    if (b == -1) {
      overflow = __builtin_sub_overflow(int64_t{0}, a, &result);
      if (op == "%") result = 0;
    } else {
      const int64_t remainder = a % b;
      const bool round_down =
          remainder != 0 && (remainder < 0) != (b < 0);  // Python's: toward minus infinity
      result = op == "%" ? (round_down ? remainder + b : remainder) : a / b - (round_down ? 1 : 0);
    }
  }
  if (overflow) return InvalidArgument("chat template: an integer overflows");
  return ChatValue::Int(result);
}

StatusOr<ChatValue> FloatArithmetic(const std::string& op, double a, double b) {
  if (op == "+") return ChatValue::Float(a + b);
  if (op == "-") return ChatValue::Float(a - b);
  if (op == "*") return ChatValue::Float(a * b);
  if (b == 0) return InvalidArgument("chat template: division by zero");
  if (op == "/") return ChatValue::Float(a / b);
  if (op == "//") return ChatValue::Float(std::floor(a / b));
  return ChatValue::Float(a - b * std::floor(a / b));
}

// A slice's bounds as Python resolves them: first index, one past the last, and the step.
struct SliceBounds {
  int64_t from, to, step;
};

SliceBounds ResolveSlice(std::optional<int64_t> from, std::optional<int64_t> to, int64_t step,
                         int64_t size) {
  const auto clamp = [&](int64_t at) {
    if (at < 0) at = at < -size ? -1 : at + size;
    if (step > 0) return at < 0 ? int64_t{0} : std::min(at, size);
    return std::min(at, size - 1);
  };
  SliceBounds bounds{.from = step > 0 ? 0 : size - 1, .to = step > 0 ? size : -1, .step = step};
  if (from.has_value()) bounds.from = clamp(*from);
  if (to.has_value()) bounds.to = clamp(*to);
  return bounds;
}

}  // namespace

StatusOr<ChatValue> ChatInterpreter::Eval(const ChatExpr& expr) {
  const ChatDepthGuard guard(&depth_);
  POLYAD_RETURN_IF_ERROR(Step(expr.line));
  return EvalKind(expr);
}

StatusOr<ChatValue> ChatInterpreter::EvalKind(const ChatExpr& expr) {
  switch (expr.kind) {
    case Expr::kLiteral:
      return expr.value;
    case Expr::kString:
      return heap_->Text(expr.name);
    case Expr::kName: {
      const ChatValue value = Lookup(expr.name);
      // A function is defined, though it is no value: `strftime_now is defined`.
      const bool is_function = expr.name == "raise_exception" || expr.name == "namespace" ||
                               expr.name == "range" ||
                               (expr.name == "strftime_now" && now_unix_s_.has_value());
      if (value.Is(Kind::kUndefined) && is_function) return ChatValue{.kind = Kind::kMacro};
      return value;
    }
    case Expr::kList:
      return EvalList(expr);
    case Expr::kDict:
      return EvalDict(expr);
    case Expr::kUnary:
      return EvalUnary(expr);
    case Expr::kBinary:
      return EvalBinary(expr);
    case Expr::kCompare:
      return EvalCompare(expr);
    case Expr::kCondition:
      return EvalCondition(expr);
    case Expr::kAttribute: {
      POLYAD_ASSIGN_OR_RETURN(const ChatValue object, Eval(*expr.children[0]));
      return GetChatAttribute(heap_, object, expr.name);
    }
    case Expr::kIndex:
      return EvalIndex(expr);
    case Expr::kSlice:
      return EvalSlice(expr);
    case Expr::kCall:
      return EvalCall(expr);
    case Expr::kFilter: {
      POLYAD_ASSIGN_OR_RETURN(const ChatValue value, Eval(*expr.children[0]));
      POLYAD_ASSIGN_OR_RETURN(const ChatArgs args, EvalArgs(expr));
      return ApplyChatFilter(heap_, expr.name, value, args);
    }
    case Expr::kTest: {
      POLYAD_ASSIGN_OR_RETURN(const ChatValue value, Eval(*expr.children[0]));
      POLYAD_ASSIGN_OR_RETURN(const ChatArgs args, EvalArgs(expr));
      POLYAD_ASSIGN_OR_RETURN(const bool passes, ApplyChatTest(expr.name, value, args));
      return ChatValue::Bool(passes != expr.negated);
    }
  }
  return Internal("chat template: expression %d", static_cast<int>(expr.kind));
}

StatusOr<ChatValue> ChatInterpreter::EvalList(const ChatExpr& expr) {
  std::vector<ChatValue> items;
  items.reserve(expr.children.size());
  for (const ChatExprPtr& child : expr.children) {
    POLYAD_ASSIGN_OR_RETURN(const ChatValue item, Eval(*child));
    items.push_back(item);
  }
  return heap_->List(std::move(items));
}

StatusOr<ChatValue> ChatInterpreter::EvalDict(const ChatExpr& expr) {
  ChatDict dict;
  for (size_t i = 0; i + 1 < expr.children.size(); i += 2) {
    POLYAD_ASSIGN_OR_RETURN(const ChatValue key, Eval(*expr.children[i]));
    if (!key.Is(Kind::kString))
      return Unimplemented("chat template: a dict key of kind %s", key.KindName());
    POLYAD_ASSIGN_OR_RETURN(const ChatValue value, Eval(*expr.children[i + 1]));
    dict.entries.emplace_back(key, value);
  }
  return heap_->Dict(std::move(dict));
}

StatusOr<ChatValue> ChatInterpreter::EvalUnary(const ChatExpr& expr) {
  POLYAD_ASSIGN_OR_RETURN(const ChatValue value, Eval(*expr.children[0]));
  if (expr.name == "not") return ChatValue::Bool(!value.IsTrue());
  if (!value.IsNumber())
    return InvalidArgument("chat template, line %d: %s of a %s", expr.line, expr.name,
                           value.KindName());
  if (expr.name == "+") return value;
  return value.IsIntegral() ? IntArithmetic("-", 0, value.integer)
                            : ChatValue::Float(-value.number);
}

StatusOr<ChatValue> ChatInterpreter::EvalBinary(const ChatExpr& expr) {
  POLYAD_ASSIGN_OR_RETURN(const ChatValue left, Eval(*expr.children[0]));
  if (expr.name == "and" && !left.IsTrue()) return left;
  if (expr.name == "or" && left.IsTrue()) return left;
  POLYAD_ASSIGN_OR_RETURN(const ChatValue right, Eval(*expr.children[1]));
  if (expr.name == "and" || expr.name == "or") return right;
  if (expr.name == "~") return Concat(left, right);
  return Arithmetic(expr.name, left, right);
}

StatusOr<ChatValue> ChatInterpreter::Concat(const ChatValue& left, const ChatValue& right) {
  POLYAD_ASSIGN_OR_RETURN(MarkedText joined, PrintValue(left));
  POLYAD_ASSIGN_OR_RETURN(const MarkedText more, PrintValue(right));
  POLYAD_RETURN_IF_ERROR(heap_->Charge(joined.text.size() + more.text.size()));
  joined.Append(more);
  return heap_->Text(std::move(joined));
}

StatusOr<ChatValue> ChatInterpreter::Arithmetic(const std::string& op, const ChatValue& left,
                                                const ChatValue& right) {
  if (op == "+" && left.Is(Kind::kString) && right.Is(Kind::kString)) return Concat(left, right);
  if (op == "+" && left.Is(Kind::kList) && right.Is(Kind::kList)) {
    std::vector<ChatValue> joined;
    POLYAD_RETURN_IF_ERROR(
        heap_->Charge((left.list->size() + right.list->size()) * sizeof(ChatValue)));
    joined.reserve(left.list->size() + right.list->size());
    joined.insert(joined.end(), left.list->begin(), left.list->end());
    joined.insert(joined.end(), right.list->begin(), right.list->end());
    return heap_->List(std::move(joined));
  }
  if (op == "*" && left.Is(Kind::kString) && right.IsIntegral()) {
    if (right.integer > kMaxRepeat)
      return ResourceExhausted("chat template: a text repeated %d times", right.integer);
    MarkedText repeated{.text = {}, .user = left.text->user};
    for (int64_t i = 0; i < right.integer; ++i) {
      POLYAD_RETURN_IF_ERROR(heap_->Charge(left.text->text.size()));
      repeated.Append(*left.text);
    }
    return heap_->Text(std::move(repeated));
  }
  if (!left.IsNumber() || !right.IsNumber()) {
    return InvalidArgument("chat template: a %s %s a %s", left.KindName(), op, right.KindName());
  }
  if (op == "**") return Unimplemented("chat template: the operator **");
  if (left.IsIntegral() && right.IsIntegral())
    return IntArithmetic(op, left.integer, right.integer);
  return FloatArithmetic(op, left.AsDouble(), right.AsDouble());
}

StatusOr<ChatValue> ChatInterpreter::EvalCompare(const ChatExpr& expr) {
  POLYAD_ASSIGN_OR_RETURN(const ChatValue left, Eval(*expr.children[0]));
  POLYAD_ASSIGN_OR_RETURN(const ChatValue right, Eval(*expr.children[1]));
  if (left.Is(Kind::kString)) POLYAD_RETURN_IF_ERROR(heap_->Charge(left.text->text.size() / 16));
  bool result = false;
  if (expr.name == "==" || expr.name == "!=") {
    POLYAD_ASSIGN_OR_RETURN(result, ValuesEqual(left, right));
    result = result == (expr.name == "==");
  } else if (expr.name == "in" || expr.name == "not in") {
    POLYAD_ASSIGN_OR_RETURN(result, ChatContains(heap_, right, left));
    result = result == (expr.name == "in");
  } else if (expr.name == "<" || expr.name == ">=") {
    POLYAD_ASSIGN_OR_RETURN(result, ChatLess(left, right));
    result = result == (expr.name == "<");
  } else {
    POLYAD_ASSIGN_OR_RETURN(result, ChatLess(right, left));
    result = result == (expr.name == ">");
  }
  return ChatValue::Bool(result);
}

StatusOr<ChatValue> ChatInterpreter::EvalCondition(const ChatExpr& expr) {
  POLYAD_ASSIGN_OR_RETURN(const ChatValue condition, Eval(*expr.children[1]));
  if (condition.IsTrue()) return Eval(*expr.children[0]);
  return expr.children.size() > 2 ? Eval(*expr.children[2]) : StatusOr<ChatValue>(ChatValue{});
}

StatusOr<ChatValue> ChatInterpreter::EvalIndex(const ChatExpr& expr) {
  POLYAD_ASSIGN_OR_RETURN(const ChatValue object, Eval(*expr.children[0]));
  POLYAD_ASSIGN_OR_RETURN(const ChatValue index, Eval(*expr.children[1]));
  if (index.Is(Kind::kString)) return GetChatAttribute(heap_, object, index.text->text);
  if (object.Is(Kind::kUndefined))
    return InvalidArgument("chat template, line %d: an index of undefined", expr.line);
  if (!index.IsIntegral() || (!object.Is(Kind::kList) && !object.Is(Kind::kString)))
    return ChatValue{};
  POLYAD_ASSIGN_OR_RETURN(const ChatValue items, ChatItems(heap_, object));
  const auto size = static_cast<int64_t>(items.list->size());
  const int64_t at =
      index.integer < 0 && index.integer >= -size ? index.integer + size : index.integer;
  return at < 0 || at >= size ? ChatValue{} : (*items.list)[static_cast<size_t>(at)];
}

StatusOr<ChatValue> ChatInterpreter::EvalSlice(const ChatExpr& expr) {
  POLYAD_ASSIGN_OR_RETURN(const ChatValue object, Eval(*expr.children[0]));
  std::array<std::optional<int64_t>, 3> parts;
  for (size_t i = 1; i < expr.children.size(); ++i) {
    if (expr.children[i] == nullptr) continue;
    POLYAD_ASSIGN_OR_RETURN(const ChatValue part, Eval(*expr.children[i]));
    if (part.Is(Kind::kNone)) continue;
    if (!part.IsIntegral())
      return InvalidArgument("chat template, line %d: a slice by %s", expr.line, part.KindName());
    parts[i - 1] = part.integer;
  }
  const int64_t step = parts[2].value_or(1);
  if (step == 0 || step == INT64_MIN)
    return InvalidArgument("chat template, line %d: a slice's step", expr.line);
  if (!object.Is(Kind::kList) && !object.Is(Kind::kString)) {
    return InvalidArgument("chat template, line %d: a slice of a %s", expr.line, object.KindName());
  }
  const std::vector<size_t> offsets =
      object.Is(Kind::kString) ? CharOffsets(*object.text) : std::vector<size_t>();
  const auto size =
      static_cast<int64_t>(object.Is(Kind::kString) ? offsets.size() - 1 : object.list->size());
  POLYAD_RETURN_IF_ERROR(heap_->Charge(static_cast<size_t>(size)));
  const SliceBounds bounds = ResolveSlice(parts[0], parts[1], step, size);
  MarkedText text;
  std::vector<ChatValue> items;
  for (int64_t at = bounds.from; step > 0 ? at < bounds.to : at > bounds.to;) {
    const auto index = static_cast<size_t>(at);
    if (object.Is(Kind::kString)) {
      text.Append(object.text->Slice(offsets[index], offsets[index + 1]));
    } else {
      items.push_back((*object.list)[index]);
    }
    if (step > 0 ? step >= bounds.to - at : step <= bounds.to - at) break;
    at += step;
  }
  return object.Is(Kind::kString) ? heap_->Text(std::move(text)) : heap_->List(std::move(items));
}

StatusOr<ChatValue> ChatInterpreter::CallGlobal(const std::string& name, const ChatArgs& args) {
  if (name == "namespace" || name == "dict") {
    ChatDict dict;
    if (!args.positional.empty())
      return Unimplemented("chat template: %s of a positional argument", name);
    for (const auto& [key, value] : args.named) {
      POLYAD_ASSIGN_OR_RETURN(const ChatValue text, heap_->Text(key));
      dict.entries.emplace_back(text, value);
    }
    return name == "dict" ? heap_->Dict(std::move(dict)) : heap_->Namespace(std::move(dict));
  }
  if (name == "range") return Range(args);
  if (name == "strftime_now" && now_unix_s_.has_value()) return FormatNow(args);
  if (name == "raise_exception") {
    MarkedText message;
    if (const ChatValue* given = args.Get(0, "message")) {
      POLYAD_ASSIGN_OR_RETURN(message, PrintValue(*given));
    }
    return InvalidArgument("the model's chat template refuses the messages: %s",
                           message.text.substr(0, 500));
  }
  return InvalidArgument("chat template: there is no function %s", name.substr(0, 100));
}

StatusOr<ChatValue> ChatInterpreter::Range(const ChatArgs& args) {
  std::array<int64_t, 3> parts = {0, 0, 1};
  const size_t count = args.positional.size();
  if (count == 0 || count > 3 || !args.named.empty())
    return InvalidArgument("chat template: range: its arguments");
  for (size_t i = 0; i < count; ++i) {
    if (!args.positional[i].IsIntegral())
      return InvalidArgument("chat template: range: expected integers");
    parts[i] = args.positional[i].integer;
  }
  if (count == 1) parts = {0, parts[0], 1};
  const auto [from, to, step] = parts;
  if (step == 0) return InvalidArgument("chat template: range: a step of 0");
  std::vector<ChatValue> items;
  for (int64_t at = from; step > 0 ? at < to : at > to;) {
    if (static_cast<int64_t>(items.size()) >= kMaxChatRange) {
      return ResourceExhausted("chat template: a range over %d long", kMaxChatRange);
    }
    items.push_back(ChatValue::Int(at));
    if (__builtin_add_overflow(at, step, &at)) break;
  }
  steps_ += static_cast<int64_t>(items.size() / 16);
  return heap_->List(std::move(items));
}

StatusOr<ChatValue> ChatInterpreter::FormatNow(const ChatArgs& args) {
  const ChatValue* format = args.Get(0, "format");
  if (format == nullptr || !format->Is(Kind::kString) ||
      format->text->text.size() > kMaxDateFormatBytes) {
    return InvalidArgument("chat template: strftime_now: expected a format of at most %d bytes",
                           kMaxDateFormatBytes);
  }
  const auto seconds = static_cast<std::time_t>(*now_unix_s_);
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  std::array<char, 1024> buffer{};
  const size_t size =
      std::strftime(buffer.data(), buffer.size(), format->text->text.c_str(), &parts);
  return heap_->Text(std::string_view(buffer.data(), size));
}

}  // namespace polyad
