#include "engine/text/chat_tools.h"

#include <algorithm>
#include <string>
#include <utility>

#include "engine/base/tool_markup.h"
#include "engine/io/json.h"
#include "engine/text/chat_interpreter.h"
#include "engine/text/utf8.h"

namespace polyad {
namespace {

constexpr JsonLimits kToolJson{.max_bytes = 4 << 20, .max_depth = 40, .max_values = 1 << 18};

StatusOr<ChatValue> UserText(ChatHeap* heap, const std::string& text) {
  return heap->Text(MarkedText{.text = SanitizeUtf8(text), .user = true});
}

StatusOr<ChatValue> FromJson(ChatHeap* heap, const OrderedJson& json) {
  if (json.is_string()) return UserText(heap, json.get<std::string>());
  if (json.is_boolean()) return ChatValue::Bool(json.get<bool>());
  if (json.is_number_unsigned() && json.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) {
    return ChatValue::Float(json.get<double>());
  }
  if (json.is_number_integer()) return ChatValue::Int(json.get<int64_t>());
  if (json.is_number_float()) return ChatValue::Float(json.get<double>());
  if (json.is_array()) {
    std::vector<ChatValue> items;
    for (const OrderedJson& item : json) {
      POLYAD_ASSIGN_OR_RETURN(items.emplace_back(), FromJson(heap, item));
    }
    return heap->List(std::move(items));
  }
  if (!json.is_object()) return ChatValue::None();
  ChatDict dict;
  for (const auto& [key, value] : json.items()) {
    auto& entry = dict.entries.emplace_back();
    POLYAD_ASSIGN_OR_RETURN(entry.first, UserText(heap, key));
    POLYAD_ASSIGN_OR_RETURN(entry.second, FromJson(heap, value));
  }
  return heap->Dict(std::move(dict));
}

StatusOr<ChatValue> ObjectOf(ChatHeap* heap, const std::string& text, const std::string& where) {
  POLYAD_ASSIGN_OR_RETURN(const OrderedJson json, ParseOrderedJson(text, where, kToolJson));
  if (!json.is_object()) {
    return InvalidArgument("%s: expected a JSON object, got %s", where, DescribeJson(json));
  }
  return FromJson(heap, json);
}

// A dict of the server's keys, in this order.
class DictMaker {
 public:
  explicit DictMaker(ChatHeap* heap) : heap_(heap) {}

  Status Add(std::string_view key, StatusOr<ChatValue> value) {
    POLYAD_RETURN_IF_ERROR(value.status());
    POLYAD_ASSIGN_OR_RETURN(const ChatValue name, heap_->Text(key));
    dict_.entries.emplace_back(name, *value);
    return absl::OkStatus();
  }
  StatusOr<ChatValue> Make() { return heap_->Dict(std::move(dict_)); }

 private:
  ChatHeap* heap_;
  ChatDict dict_;
};

// {"type": "function", "function": {...}}
StatusOr<ChatValue> FunctionOf(ChatHeap* heap, DictMaker outer, DictMaker function) {
  POLYAD_RETURN_IF_ERROR(outer.Add("type", heap->Text("function")));
  POLYAD_RETURN_IF_ERROR(outer.Add("function", function.Make()));
  return outer.Make();
}

StatusOr<ChatValue> OneTool(ChatHeap* heap, const ChatTool& tool) {
  DictMaker function(heap);
  POLYAD_RETURN_IF_ERROR(function.Add("name", UserText(heap, tool.name)));
  if (!tool.description.empty()) {
    POLYAD_RETURN_IF_ERROR(function.Add("description", UserText(heap, tool.description)));
  }
  if (!tool.parameters.empty()) {
    POLYAD_RETURN_IF_ERROR(
        function.Add("parameters", ObjectOf(heap, tool.parameters, "tools.parameters")));
  }
  return FunctionOf(heap, DictMaker(heap), std::move(function));
}

StatusOr<ChatValue> ArgumentsOf(ChatHeap* heap, const ChatToolCall& call) {
  if (call.arguments.empty()) return heap->Dict({});
  return ObjectOf(heap, call.arguments, "messages.tool_calls.arguments");
}

StatusOr<ChatValue> OneCall(ChatHeap* heap, const ChatToolCall& call) {
  DictMaker outer(heap);
  if (!call.id.empty()) POLYAD_RETURN_IF_ERROR(outer.Add("id", UserText(heap, call.id)));
  DictMaker function(heap);
  POLYAD_RETURN_IF_ERROR(function.Add("name", UserText(heap, call.name)));
  POLYAD_RETURN_IF_ERROR(function.Add("arguments", ArgumentsOf(heap, call)));
  return FunctionOf(heap, std::move(outer), std::move(function));
}

StatusOr<std::string> JsonText(const ChatValue& value) {
  MarkedText text;
  POLYAD_RETURN_IF_ERROR(WriteJson(value, -1, &text));
  return std::move(text.text);
}

std::string Between(std::string_view open, const std::string& text, std::string_view close) {
  return std::string(open) + "\n" + text + "\n" + std::string(close);
}

StatusOr<std::string> Instructions(ChatHeap* heap, const std::vector<ChatTool>& tools) {
  std::string text =
      "# Tools\n\nYou may call one or more of these functions to answer. Each line between <tools> "
      "and </tools> is one of them:\n<tools>\n";
  for (const ChatTool& tool : tools) {
    POLYAD_ASSIGN_OR_RETURN(const ChatValue value, OneTool(heap, tool));
    POLYAD_ASSIGN_OR_RETURN(const std::string json, JsonText(value));
    text += json + "\n";
  }
  return text + "</tools>\n\nTo call one, write its name and arguments as JSON:\n" +
         Between(kToolCallOpen, R"({"name": "the function", "arguments": {"argument": "value"}})",
                 kToolCallClose);
}

StatusOr<std::string> CallsAsText(ChatHeap* heap, const ChatMessage& message) {
  std::string text = message.content;
  for (const ChatToolCall& call : message.tool_calls) {
    DictMaker function(heap);
    POLYAD_RETURN_IF_ERROR(function.Add("name", UserText(heap, call.name)));
    POLYAD_RETURN_IF_ERROR(function.Add("arguments", ArgumentsOf(heap, call)));
    POLYAD_ASSIGN_OR_RETURN(const ChatValue value, function.Make());
    POLYAD_ASSIGN_OR_RETURN(const std::string json, JsonText(value));
    if (!text.empty()) text += '\n';
    text += Between(kToolCallOpen, json, kToolCallClose);
  }
  return text;
}

}  // namespace

StatusOr<ChatValue> ToolList(ChatHeap* heap, const std::vector<ChatTool>& tools) {
  if (tools.empty()) return ChatValue::None();
  std::vector<ChatValue> list;
  for (const ChatTool& tool : tools) {
    POLYAD_ASSIGN_OR_RETURN(list.emplace_back(), OneTool(heap, tool));
  }
  return heap->List(std::move(list));
}

StatusOr<ChatValue> ToolCallList(ChatHeap* heap, const std::vector<ChatToolCall>& calls) {
  std::vector<ChatValue> list;
  for (const ChatToolCall& call : calls) {
    POLYAD_ASSIGN_OR_RETURN(list.emplace_back(), OneCall(heap, call));
  }
  return heap->List(std::move(list));
}

bool SpeaksOfTools(const ChatInput& input) {
  return !input.tools.empty() ||
         std::any_of(input.messages.begin(), input.messages.end(), [](const ChatMessage& message) {
           return message.role == "tool" || !message.tool_calls.empty();
         });
}

StatusOr<std::vector<ChatMessage>> ToolsAsText(const ChatInput& input) {
  ChatHeap heap(kChatHeapBytes);
  std::vector<ChatMessage> messages;
  bool follows_answer = false;
  for (const ChatMessage& message : input.messages) {
    ChatMessage& plain = messages.emplace_back(ChatMessage{message.role, message.content});
    const bool is_answer = message.role == "tool";
    if (is_answer) {
      plain = {"user", Between(kToolAnswerOpen, message.content, kToolAnswerClose)};
      if (follows_answer) {
        const std::string text = std::move(messages.back().content);
        messages.pop_back();
        messages.back().content += "\n" + text;
      }
    } else if (!message.tool_calls.empty()) {
      POLYAD_ASSIGN_OR_RETURN(plain.content, CallsAsText(&heap, message));
    }
    follows_answer = is_answer;
  }
  if (input.tools.empty()) return messages;
  POLYAD_ASSIGN_OR_RETURN(const std::string text, Instructions(&heap, input.tools));
  if (messages.empty() || messages.front().role != "system") {
    messages.insert(messages.begin(), {"system", text});
  } else {
    messages.front().content += "\n\n" + text;
  }
  return messages;
}

}  // namespace polyad
