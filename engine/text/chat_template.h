#pragma once

// A model's chat template: messages to the text that it was trained on. Parsed once at load, then
// const: any thread may render it. A user's words never become control tokens: Render keeps apart
// what the template wrote and what came from the messages, and EncodeChat recognises control tokens
// only in the former, while the ids are those of the whole text (transformers'
// apply_chat_template). Errors: UNIMPLEMENTED names what is not served; INVALID_ARGUMENT carries
// the template's own refusal; RESOURCE_EXHAUSTED is a limit. Set up as transformers sets Jinja 3.1
// up.

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/status.h"
#include "engine/text/tokenizer.h"

namespace polyad {

struct ChatToolCall {
  std::string id;
  std::string name;
  std::string arguments;  // a JSON object; empty: {}
};

struct ChatMessage {
  std::string role;
  std::string content;
  std::vector<ChatToolCall> tool_calls = {};
  std::string tool_call_id = {};
  std::string name = {};
};

struct ChatTool {
  std::string name;
  std::string description;
  std::string parameters;  // a JSON schema; empty: none
};

struct ChatInput {
  std::vector<ChatMessage> messages = {};
  bool add_generation_prompt = true;
  std::vector<ChatTool> tools = {};
  std::string bos_token = {};  // empty: the template sees none
  std::string eos_token = {};
  std::map<std::string, bool> flags =
      {};  // further switches of a template, such as enable_thinking
  std::optional<int64_t> now_unix_s =
      {};  // what strftime_now formats (UTC); absent: no such function
  size_t max_output_bytes = kMaxEncodeBytes;
};

struct ChatProgram;

class ChatTemplate {
 public:
  static StatusOr<ChatTemplate> Parse(std::string_view source);

  // A template that reads no tools gets them as text (chat_tools.h).
  // Neighbouring segments differ in provenance; none is empty. Roles and contents are the user's.
  StatusOr<std::vector<TextSegment>> Render(const ChatInput& input) const;

 private:
  explicit ChatTemplate(std::shared_ptr<const ChatProgram> program)
      : program_(std::move(program)) {}
  std::shared_ptr<const ChatProgram> program_;
};

// The rendered text's ids. No BOS is added: templates write it themselves.
StatusOr<std::vector<int32_t>> EncodeChat(const Tokenizer& tokenizer,
                                          const std::vector<TextSegment>& segments);

}  // namespace polyad
