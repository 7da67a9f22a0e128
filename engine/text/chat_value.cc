#include "engine/text/chat_value.h"

#include <array>
#include <charconv>
#include <cmath>

namespace polyad {

namespace {

using Kind = ChatValue::Kind;
constexpr int kMaxValueDepth = 64;

std::string FloatText(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  std::array<char, 64> buffer{};
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value);
  std::string text(buffer.data(), end.ptr);
  if (text.find_first_of(".en") == std::string::npos) text += ".0";
  return text;
}

// One byte of a string as json.dumps escapes it; empty if it stands for itself.
std::string JsonEscape(char c) {
  switch (c) {
    case '"':
      return "\\\"";
    case '\\':
      return "\\\\";
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    case '\b':
      return "\\b";
    case '\f':
      return "\\f";
    default:
      return static_cast<unsigned char>(c) < 0x20 ? absl::StrFormat("\\u%04x", static_cast<int>(c))
                                                  : std::string();
  }
}

void WriteJsonString(const MarkedText& text, MarkedText* out) {
  out->Append("\"", false);
  size_t copied = 0;
  for (size_t i = 0; i < text.text.size(); ++i) {
    const std::string escaped = JsonEscape(text.text[i]);
    if (escaped.empty()) continue;
    out->Append(text.Slice(copied, i));
    out->Append(escaped, text.IsUser(i));
    copied = i + 1;
  }
  out->Append(text.Slice(copied, text.text.size()));
  out->Append("\"", false);
}

class JsonWriter {
 public:
  JsonWriter(int indent, MarkedText* out) : indent_(indent), out_(out) {}

  Status Write(const ChatValue& value, int depth) {
    if (depth > kMaxValueDepth)
      return InvalidArgument("tojson: nested over %d deep", kMaxValueDepth);
    switch (value.kind) {
      case Kind::kString:
        WriteJsonString(*value.text, out_);
        return absl::OkStatus();
      case Kind::kList:
        return WriteList(*value.list, depth);
      case Kind::kDict:
        return WriteDict(*value.dict, depth);
      case Kind::kNone:
        out_->Append("null", false);
        return absl::OkStatus();
      case Kind::kBool:
        out_->Append(value.integer != 0 ? "true" : "false", false);
        return absl::OkStatus();
      case Kind::kInt:
      case Kind::kFloat: {
        POLYAD_ASSIGN_OR_RETURN(const MarkedText text, PrintValue(value));
        out_->Append(text);
        return absl::OkStatus();
      }
      case Kind::kUndefined:
      case Kind::kNamespace:
      case Kind::kLoop:
      case Kind::kMacro:
        break;
    }
    return InvalidArgument("tojson: a value of kind %s", value.KindName());
  }

 private:
  void Break(int depth) {
    if (indent_ < 0) return;
    out_->Append("\n", false);
    out_->Append(std::string(static_cast<size_t>(indent_ * depth), ' '), false);
  }

  Status WriteList(const std::vector<ChatValue>& items, int depth) {
    out_->Append("[", false);
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out_->Append(indent_ < 0 ? ", " : ",", false);
      Break(depth + 1);
      POLYAD_RETURN_IF_ERROR(Write(items[i], depth + 1));
    }
    if (!items.empty()) Break(depth);
    out_->Append("]", false);
    return absl::OkStatus();
  }

  Status WriteDict(const ChatDict& dict, int depth) {
    out_->Append("{", false);
    bool first = true;
    for (const auto& [key, value] : dict.entries) {
      if (!first) out_->Append(indent_ < 0 ? ", " : ",", false);
      first = false;
      Break(depth + 1);
      WriteJsonString(*key.text, out_);
      out_->Append(": ", false);
      POLYAD_RETURN_IF_ERROR(Write(value, depth + 1));
    }
    if (!first) Break(depth);
    out_->Append("}", false);
    return absl::OkStatus();
  }

  int indent_;
  MarkedText* out_;
};

}  // namespace

bool ChatValue::IsTrue() const {
  switch (kind) {
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
    case Kind::kInt:
      return integer != 0;
    case Kind::kFloat:
      return number != 0;
    case Kind::kString:
      return !text->text.empty();
    case Kind::kList:
      return !list->empty();
    case Kind::kDict:
      return !dict->entries.empty();
    case Kind::kNamespace:
    case Kind::kLoop:
    case Kind::kMacro:
      return true;
  }
  return false;
}

const char* ChatValue::KindName() const {
  static constexpr std::array<const char*, 11> kNames = {
      "undefined", "none", "boolean",   "integer", "float", "string",
      "list",      "dict", "namespace", "loop",    "macro"};
  return kNames[static_cast<size_t>(kind)];
}

const ChatValue* ChatDict::Find(std::string_view key) const {
  for (const auto& [name, value] : entries) {
    if (name.text->text == key) return &value;
  }
  return nullptr;
}

Status ChatHeap::Charge(size_t bytes) {
  if (bytes > left_) return ResourceExhausted("chat template: over its memory budget");
  left_ -= bytes;
  return absl::OkStatus();
}

StatusOr<ChatValue> ChatHeap::Text(MarkedText text) {
  POLYAD_RETURN_IF_ERROR(Charge(text.text.size() + text.marks.size() + sizeof(MarkedText)));
  texts_.push_back(std::move(text));
  return ChatValue{.kind = Kind::kString, .text = &texts_.back()};
}

StatusOr<ChatValue> ChatHeap::List(std::vector<ChatValue> items) {
  POLYAD_RETURN_IF_ERROR(Charge(items.size() * sizeof(ChatValue) + sizeof(items)));
  lists_.push_back(std::move(items));
  return ChatValue{.kind = Kind::kList, .list = &lists_.back()};
}

StatusOr<ChatValue> ChatHeap::Dict(ChatDict dict) {
  POLYAD_RETURN_IF_ERROR(Charge(dict.entries.size() * 2 * sizeof(ChatValue) + sizeof(dict)));
  dicts_.push_back(std::move(dict));
  return ChatValue{.kind = Kind::kDict, .dict = &dicts_.back()};
}

StatusOr<ChatValue> ChatHeap::Namespace(ChatDict dict) {
  POLYAD_ASSIGN_OR_RETURN(ChatValue value, Dict(std::move(dict)));
  value.kind = Kind::kNamespace;
  return value;
}

StatusOr<MarkedText> PrintValue(const ChatValue& value) {
  switch (value.kind) {
    case Kind::kUndefined:
      return MarkedText{};
    case Kind::kNone:
      return MarkedText{.text = "None"};
    case Kind::kBool:
      return MarkedText{.text = value.integer != 0 ? "True" : "False"};
    case Kind::kInt:
      return MarkedText{.text = absl::StrFormat("%d", value.integer)};
    case Kind::kFloat:
      return MarkedText{.text = FloatText(value.number)};
    case Kind::kString:
      return *value.text;
    case Kind::kList:
    case Kind::kDict:
    case Kind::kNamespace:
    case Kind::kLoop:
    case Kind::kMacro:
      break;
  }
  return Unimplemented("printing a %s", value.KindName());
}

Status WriteJson(const ChatValue& value, int indent, MarkedText* out) {
  return JsonWriter(indent, out).Write(value, 0);
}

StatusOr<bool> ValuesEqual(const ChatValue& a, const ChatValue& b, int depth) {
  if (depth > kMaxValueDepth) return InvalidArgument("==: nested over %d deep", kMaxValueDepth);
  if (a.IsIntegral() && b.IsIntegral()) return a.integer == b.integer;
  if (a.IsNumber() && b.IsNumber()) return a.AsDouble() == b.AsDouble();
  if (a.kind != b.kind) return false;
  if (a.Is(Kind::kString)) return a.text->text == b.text->text;
  if (a.Is(Kind::kList)) {
    if (a.list->size() != b.list->size()) return false;
    for (size_t i = 0; i < a.list->size(); ++i) {
      POLYAD_ASSIGN_OR_RETURN(const bool equal, ValuesEqual((*a.list)[i], (*b.list)[i], depth + 1));
      if (!equal) return false;
    }
    return true;
  }
  if (a.Is(Kind::kDict)) {
    if (a.dict->entries.size() != b.dict->entries.size()) return false;
    for (const auto& [key, value] : a.dict->entries) {
      const ChatValue* other = b.dict->Find(key.text->text);
      if (other == nullptr) return false;
      POLYAD_ASSIGN_OR_RETURN(const bool equal, ValuesEqual(value, *other, depth + 1));
      if (!equal) return false;
    }
    return true;
  }
  return a.Is(Kind::kUndefined) || a.Is(Kind::kNone) ||
         (a.dict == b.dict && a.macro == b.macro && a.loop == b.loop);
}

}  // namespace polyad
