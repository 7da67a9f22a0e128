#include "engine/text/chat_template.h"

#include <utility>

#include "engine/text/chat_interpreter.h"
#include "engine/text/chat_parser.h"
#include "engine/text/chat_tools.h"
#include "engine/text/utf8.h"

namespace polyad {

struct ChatProgram {
  ChatBlock block;
  bool reads_tools = false;
};

namespace {

StatusOr<ChatValue> UserText(ChatHeap* heap, const std::string& text) {
  return heap->Text(MarkedText{.text = SanitizeUtf8(text), .user = true});
}

// What only some messages have is not there at all in the others, as transformers has it.
Status AddToolParts(ChatHeap* heap, const ChatMessage& message, ChatDict& dict) {
  const auto add = [&](std::string_view key, StatusOr<ChatValue> value) -> Status {
    POLYAD_RETURN_IF_ERROR(value.status());
    POLYAD_ASSIGN_OR_RETURN(const ChatValue name, heap->Text(key));
    dict.entries.emplace_back(name, *value);
    return absl::OkStatus();
  };
  if (!message.tool_calls.empty()) {
    POLYAD_RETURN_IF_ERROR(add("tool_calls", ToolCallList(heap, message.tool_calls)));
  }
  if (!message.tool_call_id.empty()) {
    POLYAD_RETURN_IF_ERROR(add("tool_call_id", UserText(heap, message.tool_call_id)));
  }
  if (message.name.empty()) return absl::OkStatus();
  return add("name", UserText(heap, message.name));
}

StatusOr<ChatValue> MessageList(ChatHeap* heap, const std::vector<ChatMessage>& messages) {
  POLYAD_ASSIGN_OR_RETURN(const ChatValue role_key, heap->Text("role"));
  POLYAD_ASSIGN_OR_RETURN(const ChatValue content_key, heap->Text("content"));
  std::vector<ChatValue> list;
  for (const ChatMessage& message : messages) {
    POLYAD_ASSIGN_OR_RETURN(const ChatValue role, UserText(heap, message.role));
    POLYAD_ASSIGN_OR_RETURN(const ChatValue content, UserText(heap, message.content));
    ChatDict dict{{{role_key, role}, {content_key, content}}};
    POLYAD_RETURN_IF_ERROR(AddToolParts(heap, message, dict));
    POLYAD_ASSIGN_OR_RETURN(list.emplace_back(), heap->Dict(std::move(dict)));
  }
  return heap->List(std::move(list));
}

StatusOr<ChatInterpreter::Scope> Globals(ChatHeap* heap, const ChatInput& input) {
  ChatInterpreter::Scope globals;
  POLYAD_ASSIGN_OR_RETURN(globals["messages"], MessageList(heap, input.messages));
  globals["add_generation_prompt"] = ChatValue::Bool(input.add_generation_prompt);
  // transformers always passes these two
  POLYAD_ASSIGN_OR_RETURN(globals["tools"], ToolList(heap, input.tools));
  globals["documents"] = ChatValue::None();
  for (const auto& [name, text] :
       {std::pair("bos_token", &input.bos_token), std::pair("eos_token", &input.eos_token)}) {
    if (text->empty()) continue;
    POLYAD_ASSIGN_OR_RETURN(globals[name], heap->Text(SanitizeUtf8(*text)));
  }
  for (const auto& [name, value] : input.flags) globals[name] = ChatValue::Bool(value);
  return globals;
}

std::vector<TextSegment> ToSegments(const MarkedText& text) {
  std::vector<TextSegment> segments;
  if (text.text.empty()) return segments;
  if (text.marks.empty()) {
    segments.push_back({.text = text.text, .from_user = text.user});
    return segments;
  }
  for (size_t begin = 0; begin < text.text.size();) {
    size_t end = text.marks.find(text.marks[begin] == '\0' ? '\1' : '\0', begin);
    if (end == std::string::npos) end = text.text.size();
    segments.push_back(
        {.text = text.text.substr(begin, end - begin), .from_user = text.IsUser(begin)});
    begin = end;
  }
  return segments;
}

}  // namespace

StatusOr<ChatTemplate> ChatTemplate::Parse(std::string_view source) {
  auto program = std::make_shared<ChatProgram>();
  POLYAD_ASSIGN_OR_RETURN(program->block, ParseChatTemplate(source));
  program->reads_tools = source.find("tools") != std::string_view::npos;
  return ChatTemplate(std::move(program));
}

StatusOr<std::vector<TextSegment>> ChatTemplate::Render(const ChatInput& input) const {
  if (!program_->reads_tools && SpeaksOfTools(input)) {
    ChatInput plain = input;
    POLYAD_ASSIGN_OR_RETURN(plain.messages, ToolsAsText(input));
    plain.tools.clear();
    return Render(plain);
  }
  ChatHeap heap(kChatHeapBytes);
  POLYAD_ASSIGN_OR_RETURN(ChatInterpreter::Scope globals, Globals(&heap, input));
  ChatInterpreter interpreter(&heap, std::move(globals), input.now_unix_s, input.max_output_bytes);
  POLYAD_ASSIGN_OR_RETURN(const MarkedText text, interpreter.Run(program_->block));
  return ToSegments(text);
}

StatusOr<std::vector<int32_t>> EncodeChat(const Tokenizer& tokenizer,
                                          const std::vector<TextSegment>& segments) {
  return tokenizer.EncodeSegments(segments, false);
}

}  // namespace polyad
