#include "engine/load_tokenizer.h"

#include <utility>

#include "engine/base/log.h"
#include "engine/text/chat_template.h"
#include "engine/text/gguf_tokenizer.h"
#include "engine/text/tokenizer_json.h"

namespace polyad {
namespace {

GgufTokenizerData DataOf(const GgufTokenizerMetadata& metadata) {
  GgufTokenizerData data;
  data.model = metadata.model;
  data.pre = metadata.pre;
  data.tokens = metadata.tokens;
  data.scores = metadata.scores;
  data.token_types = metadata.token_types;
  data.merges = metadata.merges;
  data.bos = metadata.bos_id;
  data.eos = metadata.eos_id;
  data.unk = metadata.unknown_id;
  data.pad = metadata.padding_id;
  data.add_bos = metadata.add_bos.value_or(data.add_bos);
  data.add_eos = metadata.add_eos.value_or(data.add_eos);
  data.add_space_prefix = metadata.add_space_prefix.value_or(data.add_space_prefix);
  return data;
}

// A model whose template is refused serves plain prompts all the same.
StatusOr<ChatTemplate> ModelsTemplate(const TokenizerFiles& files) {
  if (files.chat_template.empty()) {
    return FailedPrecondition("prompt.chat: the model has no chat template");
  }
  StatusOr<ChatTemplate> parsed = ChatTemplate::Parse(files.chat_template);
  if (parsed.ok()) return parsed;
  Log(LogLevel::kWarning, "chat_template_refused", {{"status", parsed.status().ToString()}});
  return Annotate(parsed.status(), "chat template");
}

}  // namespace

StatusOr<std::unique_ptr<const Tokenizer>> LoadTokenizer(const TokenizerFiles& files) {
  StatusOr<std::unique_ptr<Tokenizer>> tokenizer =
      FailedPrecondition("model: expected a tokenizer.json or a GGUF tokenizer, got neither");
  if (files.gguf.has_value()) {
    tokenizer = MakeGgufTokenizer(DataOf(*files.gguf));
  } else if (!files.tokenizer_json.empty()) {
    tokenizer = LoadTokenizerJson(files.tokenizer_json, files.tokenizer_config_json);
  }
  if (!tokenizer.ok()) return tokenizer.status();
  return std::unique_ptr<const Tokenizer>(*std::move(tokenizer));
}

EncodeChatPrompt LoadChat(const TokenizerFiles& files, const Tokenizer& tokenizer) {
  return [&tokenizer, models = ModelsTemplate(files)](
             const ChatPrompt& prompt) -> StatusOr<std::vector<int32_t>> {
    const ChatTemplate* chat = prompt.chat_template.get();
    if (chat == nullptr) {
      POLYAD_RETURN_IF_ERROR(models.status());
      chat = &*models;
    }
    ChatInput input;
    for (const ChatTurn& turn : prompt.messages) {
      ChatMessage& message = input.messages.emplace_back(
          ChatMessage{turn.role, turn.content, {}, turn.tool_call_id, turn.name});
      for (const ChatCall& call : turn.tool_calls) {
        message.tool_calls.push_back({call.id, call.name, call.arguments});
      }
    }
    for (const ChatFunction& tool : prompt.tools) {
      input.tools.push_back({tool.name, tool.description, tool.parameters});
    }
    input.add_generation_prompt = prompt.add_generation_prompt;
    if (tokenizer.bos()) input.bos_token = tokenizer.TokenText(*tokenizer.bos());
    if (tokenizer.eos()) input.eos_token = tokenizer.TokenText(*tokenizer.eos());
    POLYAD_ASSIGN_OR_RETURN(const std::vector<TextSegment> segments, chat->Render(input));
    return EncodeChat(tokenizer, segments);
  };
}

}  // namespace polyad
