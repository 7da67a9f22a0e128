#pragma once

// The values of a chat template while it renders. A value is a small handle; what it points at
// lives in the heap of that one rendering and goes with it, so values are copied freely and nothing
// is freed one by one. Strings carry the marks of who wrote each byte. Every allocation is charged;
// over the budget is RESOURCE_EXHAUSTED. One thread.

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/base/status.h"
#include "engine/text/marked_text.h"

namespace polyad {

struct ChatDict;
struct ChatLoop;
struct ChatMacro;

struct ChatValue {
  enum class Kind {
    kUndefined,
    kNone,
    kBool,
    kInt,
    kFloat,
    kString,
    kList,
    kDict,
    kNamespace,
    kLoop,
    kMacro
  };
  Kind kind = Kind::kUndefined;
  int64_t integer = 0;  // kInt, kBool
  double number = 0;    // kFloat
  const MarkedText* text = nullptr;
  const std::vector<ChatValue>* list = nullptr;
  ChatDict* dict = nullptr;  // kDict (never changed once made), kNamespace
  const ChatLoop* loop = nullptr;
  const ChatMacro* macro = nullptr;

  static ChatValue None() { return {.kind = Kind::kNone}; }
  static ChatValue Bool(bool value) { return {.kind = Kind::kBool, .integer = value ? 1 : 0}; }
  static ChatValue Int(int64_t value) { return {.kind = Kind::kInt, .integer = value}; }
  static ChatValue Float(double value) { return {.kind = Kind::kFloat, .number = value}; }

  bool Is(Kind wanted) const { return kind == wanted; }
  bool IsIntegral() const { return kind == Kind::kInt || kind == Kind::kBool; }
  bool IsNumber() const { return IsIntegral() || kind == Kind::kFloat; }
  double AsDouble() const { return kind == Kind::kFloat ? number : static_cast<double>(integer); }
  bool IsTrue() const;
  const char* KindName() const;
};

struct ChatDict {
  std::vector<std::pair<ChatValue, ChatValue>> entries;  // keys are strings; in order of insertion
  const ChatValue* Find(std::string_view key) const;
};

struct ChatLoop {
  const std::vector<ChatValue>* items = nullptr;
  size_t index = 0;
  int depth = 0;
};

class ChatHeap {
 public:
  explicit ChatHeap(size_t budget_bytes) : left_(budget_bytes) {}
  Status Charge(size_t bytes);
  StatusOr<ChatValue> Text(MarkedText text);
  StatusOr<ChatValue> Text(std::string_view text) { return Text({.text = std::string(text)}); }
  StatusOr<ChatValue> List(std::vector<ChatValue> items);
  StatusOr<ChatValue> Dict(ChatDict dict);
  StatusOr<ChatValue> Namespace(ChatDict dict);

 private:
  size_t left_;
  std::deque<MarkedText> texts_;
  std::deque<std::vector<ChatValue>> lists_;
  std::deque<ChatDict> dicts_;
};

// What `{{ value }}` prints. Lists and dicts are refused: a template means tojson.
StatusOr<MarkedText> PrintValue(const ChatValue& value);

// json.dumps(ensure_ascii=False), with `indent` spaces if it is not negative.
Status WriteJson(const ChatValue& value, int indent, MarkedText* out);

// Python's == ; depth-limited.
StatusOr<bool> ValuesEqual(const ChatValue& a, const ChatValue& b, int depth = 0);

}  // namespace polyad
