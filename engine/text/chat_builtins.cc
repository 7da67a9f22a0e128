#include "engine/text/chat_builtins.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "engine/text/chat_strings.h"
#include "engine/text/utf8.h"

namespace polyad {

namespace {

using Kind = ChatValue::Kind;

constexpr std::array<std::string_view, 28> kFilters = {
    "trim",   "tojson", "length",     "count",      "upper",   "lower", "capitalize",
    "title",  "join",   "default",    "d",          "first",   "last",  "replace",
    "items",  "list",   "string",     "int",        "float",   "abs",   "map",
    "select", "reject", "selectattr", "rejectattr", "reverse", "safe",  "indent"};
constexpr std::array<std::string_view, 27> kTests = {
    "defined", "undefined", "none",  "string",  "number",   "integer",  "float",
    "boolean", "true",      "false", "mapping", "iterable", "sequence", "equalto",
    "eq",      "==",        "ne",    "!=",      "lt",       "<",        "le",
    "<=",      "gt",        ">",     "in",      "odd",      "even"};
constexpr int64_t kMaxIndent = 64;

StatusOr<MarkedText> TextOf(const ChatValue* value, const char* what) {
  if (value == nullptr) return InvalidArgument("%s: an argument is missing", what);
  return PrintValue(*value);
}

StatusOr<int64_t> IntOf(const ChatValue* value, int64_t fallback, const char* what) {
  if (value == nullptr || value->Is(Kind::kNone)) return fallback;
  if (!value->IsIntegral())
    return InvalidArgument("%s: expected an integer, got %s", what, value->KindName());
  return value->integer;
}

StatusOr<ChatValue> ListOfTexts(ChatHeap* heap, std::vector<MarkedText> texts) {
  std::vector<ChatValue> items;
  items.reserve(texts.size());
  for (MarkedText& text : texts) {
    POLYAD_ASSIGN_OR_RETURN(const ChatValue item, heap->Text(std::move(text)));
    items.push_back(item);
  }
  return heap->List(std::move(items));
}

StatusOr<ChatValue> Pairs(ChatHeap* heap, const ChatDict& dict) {
  std::vector<ChatValue> pairs;
  for (const auto& [key, value] : dict.entries) {
    POLYAD_ASSIGN_OR_RETURN(const ChatValue pair, heap->List({key, value}));
    pairs.push_back(pair);
  }
  return heap->List(std::move(pairs));
}

StatusOr<ChatValue> Strip(ChatHeap* heap, const ChatValue& value, const ChatValue* chars, bool left,
                          bool right) {
  POLYAD_ASSIGN_OR_RETURN(const MarkedText text, PrintValue(value));
  if (chars == nullptr || chars->Is(Kind::kNone))
    return heap->Text(StripText(text, left, right, std::nullopt));
  POLYAD_ASSIGN_OR_RETURN(const MarkedText set, PrintValue(*chars));
  POLYAD_RETURN_IF_ERROR(
      heap->Charge(set.text.size() < 64 ? 0 : set.text.size() * text.text.size()));
  return heap->Text(StripText(text, left, right, set.text));
}

StatusOr<ChatValue> Cased(ChatHeap* heap, const ChatValue& value, TextCase to) {
  POLYAD_ASSIGN_OR_RETURN(const MarkedText text, PrintValue(value));
  return heap->Text(ChangeCase(text, to));
}

StatusOr<ChatValue> Replace(ChatHeap* heap, const ChatValue& value, const ChatArgs& args) {
  POLYAD_ASSIGN_OR_RETURN(const MarkedText text, PrintValue(value));
  POLYAD_ASSIGN_OR_RETURN(const MarkedText from, TextOf(args.Get(0, "old"), "replace"));
  POLYAD_ASSIGN_OR_RETURN(const MarkedText to, TextOf(args.Get(1, "new"), "replace"));
  POLYAD_ASSIGN_OR_RETURN(const int64_t count, IntOf(args.Get(2, "count"), -1, "replace"));
  if (from.text.empty()) return Unimplemented("replace: an empty text to replace");
  POLYAD_RETURN_IF_ERROR(
      heap->Charge(text.text.size() + text.text.size() / from.text.size() * to.text.size()));
  return heap->Text(ReplaceText(text, from.text, to, count));
}

StatusOr<ChatValue> Join(ChatHeap* heap, const ChatValue& value, const ChatValue* separator,
                         const ChatValue* attribute) {
  MarkedText between;
  if (separator != nullptr) {
    POLYAD_ASSIGN_OR_RETURN(between, PrintValue(*separator));
  }
  POLYAD_ASSIGN_OR_RETURN(const ChatValue items, ChatItems(heap, value));
  MarkedText joined;
  bool first = true;
  for (ChatValue item : *items.list) {
    if (attribute != nullptr && attribute->Is(Kind::kString)) {
      POLYAD_ASSIGN_OR_RETURN(item, GetChatAttribute(heap, item, attribute->text->text));
    }
    POLYAD_ASSIGN_OR_RETURN(const MarkedText text, PrintValue(item));
    POLYAD_RETURN_IF_ERROR(heap->Charge(between.text.size() + text.text.size()));
    if (!first) joined.Append(between);
    first = false;
    joined.Append(text);
  }
  return heap->Text(std::move(joined));
}

StatusOr<ChatValue> Length(const ChatValue& value) {
  switch (value.kind) {
    case Kind::kString:
      return ChatValue::Int(static_cast<int64_t>(CountUtf8Chars(value.text->text)));
    case Kind::kList:
      return ChatValue::Int(static_cast<int64_t>(value.list->size()));
    case Kind::kDict:
      return ChatValue::Int(static_cast<int64_t>(value.dict->entries.size()));
    case Kind::kUndefined:
      return ChatValue::Int(0);
    case Kind::kNone:
    case Kind::kBool:
    case Kind::kInt:
    case Kind::kFloat:
    case Kind::kNamespace:
    case Kind::kLoop:
    case Kind::kMacro:
      break;
  }
  return InvalidArgument("length of a %s", value.KindName());
}

StatusOr<ChatValue> ToNumber(const ChatValue& value, const ChatValue* fallback, bool whole) {
  if (value.IsNumber()) {
    if (!whole) return ChatValue::Float(value.AsDouble());
    const double number = value.AsDouble();
    if (value.IsIntegral()) return ChatValue::Int(value.integer);
    if (number > -9e18 && number < 9e18) return ChatValue::Int(static_cast<int64_t>(number));
  }
  if (value.Is(Kind::kString)) {
    const std::string text = StripText(*value.text, true, true, std::nullopt).text;
    double number = 0;
    const auto result = std::from_chars(text.data(), text.data() + text.size(), number);
    if (!text.empty() && result.ec == std::errc() && result.ptr == text.data() + text.size()) {
      return ToNumber(ChatValue::Float(number), fallback, whole);
    }
  }
  if (fallback != nullptr) return *fallback;
  return whole ? ChatValue::Int(0) : ChatValue::Float(0);
}

StatusOr<ChatValue> Indent(ChatHeap* heap, const ChatValue& value, const ChatArgs& args) {
  POLYAD_ASSIGN_OR_RETURN(const MarkedText text, PrintValue(value));
  POLYAD_ASSIGN_OR_RETURN(const int64_t width, IntOf(args.Get(0, "width"), 4, "indent"));
  if (width < 0 || width > kMaxIndent)
    return InvalidArgument("indent: expected 0 to %d", kMaxIndent);
  const bool first = args.Get(1, "first") != nullptr && args.Get(1, "first")->IsTrue();
  const bool blank = args.Get(2, "blank") != nullptr && args.Get(2, "blank")->IsTrue();
  const std::string margin(static_cast<size_t>(width), ' ');
  MarkedText out;
  size_t num_lines = 0;
  for (const MarkedText& line : SplitText(text, "\n", -1)) {
    POLYAD_RETURN_IF_ERROR(heap->Charge(margin.size() + line.text.size()));
    if (num_lines > 0) out.Append("\n", text.user);
    if (num_lines == 0 ? first : blank || !line.text.empty()) out.Append(margin, false);
    out.Append(line);
    ++num_lines;
  }
  return heap->Text(std::move(out));
}

StatusOr<ChatValue> Map(ChatHeap* heap, const ChatValue& value, const ChatArgs& args) {
  POLYAD_ASSIGN_OR_RETURN(const ChatValue items, ChatItems(heap, value));
  const ChatValue* attribute = args.Get(100, "attribute");
  const ChatValue* filter = args.Get(0, "");
  std::vector<ChatValue> mapped;
  ChatArgs rest;
  if (args.positional.size() > 1)
    rest.positional.assign(args.positional.begin() + 1, args.positional.end());
  for (const ChatValue& item : *items.list) {
    ChatValue result;
    if (attribute != nullptr && attribute->Is(Kind::kString)) {
      POLYAD_ASSIGN_OR_RETURN(result, GetChatAttribute(heap, item, attribute->text->text));
      const ChatValue* fallback = args.Get(100, "default");
      if (result.Is(Kind::kUndefined) && fallback != nullptr) result = *fallback;
    } else if (filter != nullptr && filter->Is(Kind::kString)) {
      if (filter->text->text == "map") return Unimplemented("map of map");
      POLYAD_ASSIGN_OR_RETURN(result, ApplyChatFilter(heap, filter->text->text, item, rest));
    } else {
      return InvalidArgument("map: expected attribute= or a filter's name");
    }
    mapped.push_back(result);
  }
  return heap->List(std::move(mapped));
}

// select, reject, selectattr and rejectattr: which items pass a test.
StatusOr<ChatValue> Select(ChatHeap* heap, const std::string& name, const ChatValue& value,
                           const ChatArgs& args) {
  const bool by_attribute = name == "selectattr" || name == "rejectattr";
  const bool wanted = name == "select" || name == "selectattr";
  size_t next = 0;
  std::string attribute;
  if (by_attribute) {
    const ChatValue* argument = args.Get(next++, "");
    if (argument == nullptr || !argument->Is(Kind::kString))
      return InvalidArgument("%s: expected an attribute", name);
    attribute = argument->text->text;
  }
  const ChatValue* test = args.Get(next++, "");
  if (test != nullptr && !test->Is(Kind::kString))
    return InvalidArgument("%s: expected a test's name", name);
  ChatArgs rest;
  for (; next < args.positional.size(); ++next) rest.positional.push_back(args.positional[next]);
  POLYAD_ASSIGN_OR_RETURN(const ChatValue items, ChatItems(heap, value));
  std::vector<ChatValue> selected;
  for (const ChatValue& item : *items.list) {
    ChatValue subject = item;
    if (by_attribute) {
      POLYAD_ASSIGN_OR_RETURN(subject, GetChatAttribute(heap, item, attribute));
    }
    bool passes = subject.IsTrue();
    if (test != nullptr) {
      POLYAD_ASSIGN_OR_RETURN(passes, ApplyChatTest(test->text->text, subject, rest));
    }
    if (passes == wanted) selected.push_back(item);
  }
  return heap->List(std::move(selected));
}

StatusOr<ChatValue> ToJson(ChatHeap* heap, const ChatValue& value, const ChatArgs& args) {
  POLYAD_ASSIGN_OR_RETURN(const int64_t indent, IntOf(args.Get(0, "indent"), -1, "tojson"));
  if (indent > kMaxIndent) return InvalidArgument("tojson: indent of at most %d", kMaxIndent);
  MarkedText out;
  POLYAD_RETURN_IF_ERROR(WriteJson(value, static_cast<int>(std::max<int64_t>(indent, -1)), &out));
  return heap->Text(std::move(out));
}

StatusOr<ChatValue> Reverse(ChatHeap* heap, const ChatValue& value) {
  POLYAD_ASSIGN_OR_RETURN(const ChatValue items, ChatItems(heap, value));
  std::vector<ChatValue> reversed(items.list->rbegin(), items.list->rend());
  POLYAD_ASSIGN_OR_RETURN(const ChatValue list, heap->List(std::move(reversed)));
  return value.Is(Kind::kString) ? Join(heap, list, nullptr, nullptr) : list;
}

StatusOr<ChatValue> EndOf(ChatHeap* heap, const ChatValue& value, bool first) {
  POLYAD_ASSIGN_OR_RETURN(const ChatValue items, ChatItems(heap, value));
  if (items.list->empty()) return ChatValue{};
  return first ? items.list->front() : items.list->back();
}

StatusOr<bool> EndsOrStartsWith(const ChatValue& object, const ChatValue* with, bool starts) {
  const char* what = starts ? "startswith" : "endswith";
  if (with == nullptr) return InvalidArgument("%s: an argument is missing", what);
  if (with->Is(Kind::kList)) {
    for (const ChatValue& one : *with->list) {
      if (!one.Is(Kind::kString)) return InvalidArgument("%s: expected strings", what);
      POLYAD_ASSIGN_OR_RETURN(const bool found, EndsOrStartsWith(object, &one, starts));
      if (found) return true;
    }
    return false;
  }
  if (!with->Is(Kind::kString))
    return InvalidArgument("%s: expected a string, got %s", what, with->KindName());
  return starts ? object.text->text.starts_with(with->text->text)
                : object.text->text.ends_with(with->text->text);
}

StatusOr<ChatValue> Split(ChatHeap* heap, const ChatValue& object, const ChatArgs& args) {
  const ChatValue* separator = args.Get(0, "sep");
  POLYAD_ASSIGN_OR_RETURN(const int64_t max_splits, IntOf(args.Get(1, "maxsplit"), -1, "split"));
  std::string by;
  if (separator != nullptr && !separator->Is(Kind::kNone)) {
    if (!separator->Is(Kind::kString) || separator->text->text.empty())
      return InvalidArgument("split: a separator");
    by = separator->text->text;
  } else if (object.text->text.size() > 65536) {
    return ResourceExhausted(
        "split: white space in over 64 KiB");  // costs the square of the number of words
  }
  return ListOfTexts(heap, SplitText(*object.text, by, max_splits));
}

StatusOr<ChatValue> StringMethod(ChatHeap* heap, const ChatValue& object, const std::string& name,
                                 const ChatArgs& args) {
  if (name == "strip") return Strip(heap, object, args.Get(0, "chars"), true, true);
  if (name == "lstrip") return Strip(heap, object, args.Get(0, "chars"), true, false);
  if (name == "rstrip") return Strip(heap, object, args.Get(0, "chars"), false, true);
  if (name == "upper") return Cased(heap, object, TextCase::kUpper);
  if (name == "lower") return Cased(heap, object, TextCase::kLower);
  if (name == "capitalize") return Cased(heap, object, TextCase::kCapitalize);
  if (name == "title") return Cased(heap, object, TextCase::kTitle);
  if (name == "replace") return Replace(heap, object, args);
  if (name == "split") return Split(heap, object, args);
  if (name == "splitlines") return ListOfTexts(heap, SplitLines(*object.text));
  if (name == "join") {
    if (args.Get(0, "") == nullptr) return InvalidArgument("join: an argument is missing");
    return Join(heap, *args.Get(0, ""), &object, nullptr);
  }
  if (name == "startswith" || name == "endswith") {
    POLYAD_ASSIGN_OR_RETURN(const bool found,
                            EndsOrStartsWith(object, args.Get(0, ""), name == "startswith"));
    return ChatValue::Bool(found);
  }
  if (name == "find") {
    POLYAD_ASSIGN_OR_RETURN(const MarkedText wanted, TextOf(args.Get(0, ""), "find"));
    const size_t at = object.text->text.find(wanted.text);
    if (at == std::string::npos) return ChatValue::Int(-1);
    return ChatValue::Int(
        static_cast<int64_t>(CountUtf8Chars(std::string_view(object.text->text).substr(0, at))));
  }
  return Unimplemented("the string method %s", name);
}

StatusOr<ChatValue> DictMethod(ChatHeap* heap, const ChatValue& object, const std::string& name,
                               const ChatArgs& args) {
  if (name == "items") return Pairs(heap, *object.dict);
  if (name == "keys") return ChatItems(heap, object);
  if (name == "values") {
    std::vector<ChatValue> values;
    for (const auto& entry : object.dict->entries) values.push_back(entry.second);
    return heap->List(std::move(values));
  }
  if (name == "get") {
    const ChatValue* key = args.Get(0, "key");
    if (key == nullptr) return InvalidArgument("get: an argument is missing");
    const ChatValue* found = key->Is(Kind::kString) ? object.dict->Find(key->text->text) : nullptr;
    if (found != nullptr) return *found;
    return args.Get(1, "default") != nullptr ? *args.Get(1, "default") : ChatValue::None();
  }
  return Unimplemented("the dict method %s", name);
}

ChatValue LoopAttribute(const ChatLoop& loop, std::string_view name) {
  const auto index = static_cast<int64_t>(loop.index);
  const auto length = static_cast<int64_t>(loop.items->size());
  if (name == "index0") return ChatValue::Int(index);
  if (name == "index") return ChatValue::Int(index + 1);
  if (name == "first") return ChatValue::Bool(index == 0);
  if (name == "last") return ChatValue::Bool(index + 1 == length);
  if (name == "length") return ChatValue::Int(length);
  if (name == "revindex") return ChatValue::Int(length - index);
  if (name == "revindex0") return ChatValue::Int(length - index - 1);
  if (name == "depth") return ChatValue::Int(loop.depth);
  if (name == "depth0") return ChatValue::Int(loop.depth - 1);
  if (name == "previtem" && index > 0) return (*loop.items)[loop.index - 1];
  if (name == "nextitem" && index + 1 < length) return (*loop.items)[loop.index + 1];
  return {};
}

}  // namespace

const ChatValue* ChatArgs::Get(size_t index, std::string_view name) const {
  if (index < positional.size()) return &positional[index];
  for (const auto& [key, value] : named) {
    if (key == name) return &value;
  }
  return nullptr;
}

bool IsChatFilter(std::string_view name) {
  return std::find(kFilters.begin(), kFilters.end(), name) != kFilters.end();
}
bool IsChatTest(std::string_view name) {
  return name == "divisibleby" || name == "ge" || name == ">=" ||
         std::find(kTests.begin(), kTests.end(), name) != kTests.end();
}

StatusOr<ChatValue> ApplyChatFilter(ChatHeap* heap, const std::string& name, const ChatValue& value,
                                    const ChatArgs& args) {
  POLYAD_RETURN_IF_ERROR(heap->Charge(value.Is(Kind::kString) ? value.text->text.size() : 1));
  if (name == "trim") return Strip(heap, value, args.Get(0, "chars"), true, true);
  if (name == "tojson") return ToJson(heap, value, args);
  if (name == "length" || name == "count") return Length(value);
  if (name == "upper") return Cased(heap, value, TextCase::kUpper);
  if (name == "lower") return Cased(heap, value, TextCase::kLower);
  if (name == "capitalize") return Cased(heap, value, TextCase::kCapitalize);
  if (name == "title") return Cased(heap, value, TextCase::kTitle);
  if (name == "join") return Join(heap, value, args.Get(0, "d"), args.Get(1, "attribute"));
  if (name == "default" || name == "d") {
    const bool any_false = args.Get(1, "boolean") != nullptr && args.Get(1, "boolean")->IsTrue();
    if (!value.Is(Kind::kUndefined) && (!any_false || value.IsTrue())) return value;
    return args.Get(0, "default_value") != nullptr ? *args.Get(0, "default_value") : heap->Text("");
  }
  if (name == "first") return EndOf(heap, value, true);
  if (name == "last") return EndOf(heap, value, false);
  if (name == "replace") return Replace(heap, value, args);
  if (name == "items") {
    if (value.Is(Kind::kUndefined)) return heap->List({});
    if (!value.Is(Kind::kDict)) return InvalidArgument("items of a %s", value.KindName());
    return Pairs(heap, *value.dict);
  }
  if (name == "list") return ChatItems(heap, value);
  if (name == "string" || name == "safe") {
    POLYAD_ASSIGN_OR_RETURN(MarkedText text, PrintValue(value));
    return heap->Text(std::move(text));
  }
  if (name == "int" || name == "float")
    return ToNumber(value, args.Get(0, "default"), name == "int");
  if (name == "abs") {
    if (value.Is(Kind::kFloat))
      return ChatValue::Float(value.number < 0 ? -value.number : value.number);
    if (!value.IsIntegral() || value.integer == INT64_MIN)
      return InvalidArgument("abs of a %s", value.KindName());
    return ChatValue::Int(value.integer < 0 ? -value.integer : value.integer);
  }
  if (name == "map") return Map(heap, value, args);
  if (name == "select" || name == "reject" || name == "selectattr" || name == "rejectattr") {
    return Select(heap, name, value, args);
  }
  if (name == "reverse") return Reverse(heap, value);
  if (name == "indent") return Indent(heap, value, args);
  return Unimplemented("the filter %s", name);
}

StatusOr<bool> ApplyChatTest(const std::string& name, const ChatValue& value,
                             const ChatArgs& args) {
  if (name == "defined") return !value.Is(Kind::kUndefined);
  if (name == "undefined") return value.Is(Kind::kUndefined);
  if (name == "none") return value.Is(Kind::kNone);
  if (name == "string") return value.Is(Kind::kString);
  if (name == "number") return value.IsNumber();
  if (name == "integer") return value.Is(Kind::kInt);
  if (name == "float") return value.Is(Kind::kFloat);
  if (name == "boolean") return value.Is(Kind::kBool);
  if (name == "true" || name == "false")
    return value.Is(Kind::kBool) && (value.integer != 0) == (name == "true");
  if (name == "mapping") return value.Is(Kind::kDict);
  if (name == "iterable" || name == "sequence") {
    return value.Is(Kind::kList) || value.Is(Kind::kDict) || value.Is(Kind::kString) ||
           value.Is(Kind::kUndefined);
  }
  if (name == "odd" || name == "even") {
    if (!value.IsIntegral())
      return InvalidArgument("%s: expected an integer, got %s", name, value.KindName());
    return (value.integer % 2 != 0) == (name == "odd");
  }
  const ChatValue* other = args.Get(0, "");
  if (other == nullptr) return InvalidArgument("the test %s: an argument is missing", name);
  if (name == "equalto" || name == "eq" || name == "==") return ValuesEqual(value, *other);
  if (name == "ne" || name == "!=") {
    POLYAD_ASSIGN_OR_RETURN(const bool equal, ValuesEqual(value, *other));
    return !equal;
  }
  if (name == "lt" || name == "<") return ChatLess(value, *other);
  if (name == "gt" || name == ">") return ChatLess(*other, value);
  if (name == "le" || name == "<=" || name == "ge" || name == ">=") {
    const bool at_most = name == "le" || name == "<=";
    POLYAD_ASSIGN_OR_RETURN(const bool beyond,
                            at_most ? ChatLess(*other, value) : ChatLess(value, *other));
    return !beyond;
  }
  if (name == "divisibleby") {
    if (!value.IsIntegral() || !other->IsIntegral() || other->integer == 0 ||
        other->integer == -1) {
      return InvalidArgument("divisibleby: expected integers");
    }
    return value.integer % other->integer == 0;
  }
  if (name == "in") return ChatContains(nullptr, *other, value);
  return Unimplemented("the test %s", name);
}

StatusOr<ChatValue> CallChatMethod(ChatHeap* heap, const ChatValue& object, const std::string& name,
                                   const ChatArgs& args) {
  if (object.Is(Kind::kString)) {
    POLYAD_RETURN_IF_ERROR(heap->Charge(object.text->text.size()));
    return StringMethod(heap, object, name, args);
  }
  if (object.Is(Kind::kDict)) return DictMethod(heap, object, name, args);
  if (object.Is(Kind::kLoop) && name == "cycle" && !args.positional.empty()) {
    return args.positional[object.loop->index % args.positional.size()];
  }
  return InvalidArgument("a %s has no method %s", object.KindName(), name);
}

StatusOr<ChatValue> GetChatAttribute(ChatHeap* heap, const ChatValue& object,
                                     std::string_view name) {
  POLYAD_RETURN_IF_ERROR(heap->Charge(1));
  if (object.Is(Kind::kUndefined)) return InvalidArgument("\"%s\" of an undefined value", name);
  if (object.Is(Kind::kLoop)) return LoopAttribute(*object.loop, name);
  if (!object.Is(Kind::kDict) && !object.Is(Kind::kNamespace)) return ChatValue{};
  const ChatValue* found = object.dict->Find(name);
  return found == nullptr ? ChatValue{} : *found;
}

StatusOr<ChatValue> ChatItems(ChatHeap* heap, const ChatValue& value) {
  if (value.Is(Kind::kList)) return value;
  std::vector<ChatValue> items;
  if (value.Is(Kind::kDict)) {
    for (const auto& entry : value.dict->entries) items.push_back(entry.first);
    return heap->List(std::move(items));
  }
  if (value.Is(Kind::kString)) {
    const std::vector<size_t> offsets = CharOffsets(*value.text);
    for (size_t i = 0; i + 1 < offsets.size(); ++i) {
      POLYAD_ASSIGN_OR_RETURN(const ChatValue item,
                              heap->Text(value.text->Slice(offsets[i], offsets[i + 1])));
      items.push_back(item);
    }
    return heap->List(std::move(items));
  }
  if (value.Is(Kind::kUndefined)) return heap->List({});
  return InvalidArgument("a %s cannot be iterated", value.KindName());
}

StatusOr<bool> ChatLess(const ChatValue& a, const ChatValue& b) {
  if (a.IsIntegral() && b.IsIntegral()) return a.integer < b.integer;
  if (a.IsNumber() && b.IsNumber()) return a.AsDouble() < b.AsDouble();
  if (a.Is(Kind::kString) && b.Is(Kind::kString)) return a.text->text < b.text->text;
  return InvalidArgument("a %s and a %s cannot be ordered", a.KindName(), b.KindName());
}

StatusOr<bool> ChatContains(ChatHeap* heap, const ChatValue& container, const ChatValue& item) {
  if (container.Is(Kind::kUndefined)) return false;
  if (container.Is(Kind::kString)) {
    if (!item.Is(Kind::kString)) return InvalidArgument("in: a %s in a string", item.KindName());
    if (heap != nullptr) POLYAD_RETURN_IF_ERROR(heap->Charge(container.text->text.size()));
    return container.text->text.find(item.text->text) != std::string::npos;
  }
  if (container.Is(Kind::kDict))
    return item.Is(Kind::kString) && container.dict->Find(item.text->text) != nullptr;
  if (!container.Is(Kind::kList))
    return InvalidArgument("in: a %s is no container", container.KindName());
  for (const ChatValue& candidate : *container.list) {
    if (heap != nullptr) POLYAD_RETURN_IF_ERROR(heap->Charge(1));
    POLYAD_ASSIGN_OR_RETURN(const bool equal, ValuesEqual(candidate, item));
    if (equal) return true;
  }
  return false;
}

}  // namespace polyad
