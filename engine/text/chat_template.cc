#include "engine/text/chat_template.h"

#include <utility>

#include "engine/text/chat_interpreter.h"
#include "engine/text/chat_parser.h"
#include "engine/text/utf8.h"

namespace polyad {

struct ChatProgram {
  ChatBlock block;
};

namespace {

StatusOr<ChatValue> UserText(ChatHeap* heap, const std::string& text) {
  return heap->Text(MarkedText{.text = SanitizeUtf8(text), .user = true});
}

StatusOr<ChatValue> MessageList(ChatHeap* heap, const std::vector<ChatMessage>& messages) {
  POLYAD_ASSIGN_OR_RETURN(const ChatValue role_key, heap->Text("role"));
  POLYAD_ASSIGN_OR_RETURN(const ChatValue content_key, heap->Text("content"));
  std::vector<ChatValue> list;
  for (const ChatMessage& message : messages) {
    POLYAD_ASSIGN_OR_RETURN(const ChatValue role, UserText(heap, message.role));
    POLYAD_ASSIGN_OR_RETURN(const ChatValue content, UserText(heap, message.content));
    POLYAD_ASSIGN_OR_RETURN(const ChatValue dict,
                            heap->Dict({{{role_key, role}, {content_key, content}}}));
    list.push_back(dict);
  }
  return heap->List(std::move(list));
}

StatusOr<ChatInterpreter::Scope> Globals(ChatHeap* heap, const ChatInput& input) {
  ChatInterpreter::Scope globals;
  POLYAD_ASSIGN_OR_RETURN(globals["messages"], MessageList(heap, input.messages));
  globals["add_generation_prompt"] = ChatValue::Bool(input.add_generation_prompt);
  globals["tools"] = ChatValue::None();  // transformers always passes these two
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
  return ChatTemplate(std::move(program));
}

StatusOr<std::vector<TextSegment>> ChatTemplate::Render(const ChatInput& input) const {
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
