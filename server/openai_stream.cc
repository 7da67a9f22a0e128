#include "server/openai_stream.h"

#include <limits>
#include <utility>

#include "absl/strings/str_format.h"
#include "server/json_text.h"
#include "server/openai_error.h"
#include "server/openai_served.h"

namespace polyad {
namespace {

std::string_view ObjectName(OpenAiKind kind, bool stream) {
  if (kind == OpenAiKind::kCompletion) return "text_completion";
  return stream ? "chat.completion.chunk" : "chat.completion";
}

std::string FinishName(FinishReason reason) {
  return reason == FinishReason::kLength ? "length" : "stop";
}

}  // namespace

OpenAiStream::OpenAiStream(Options options, std::shared_ptr<HttpExchange> exchange)
    : options_(std::move(options)),
      exchange_(std::move(exchange)),
      choices_(static_cast<size_t>(options_.num_choices), Choice(options_.max_tool_calls)) {
  BeginBody(head_);
}

void OpenAiStream::BeginBody(std::string& out) const {
  out += R"({"id":)";
  AppendJsonString(options_.id, out);
  out += R"(,"object":")";
  out += ObjectName(options_.kind, options_.stream);
  out += R"(","created":)";
  AppendJsonInt(options_.created_unix_s, out);
  out += R"(,"model":)";
  AppendJsonString(options_.model, out);
  out += R"(,"choices":[)";
}

bool OpenAiStream::OnEvent(TokenEvent event) {
  if (failed_) return false;
  if (auto* tokens = std::get_if<TokensEvent>(&event)) return OnTokens(std::move(*tokens));
  if (auto* prompt = std::get_if<PromptEvent>(&event)) return OnPrompt(std::move(*prompt));
  return OnFinish(std::get<FinishEvent>(event));
}

// With echo and logprobs every choice begins with the prompt's tokens; its first token has no
// probability.
bool OpenAiStream::OnPrompt(PromptEvent event) {
  adapter_ = event.adapter;
  if (!options_.echo || !options_.logprobs) return true;
  TokenLogprob first;
  first.token_id = options_.first_prompt_token;
  first.logprob = -std::numeric_limits<float>::infinity();  // written as null
  event.token_logprobs.insert(event.token_logprobs.begin(), std::move(first));
  for (Choice& choice : choices_) choice.logprobs = event.token_logprobs;
  return true;
}

bool OpenAiStream::OnTokens(TokensEvent event) {
  const auto index = static_cast<size_t>(event.choice);
  if (index >= choices_.size()) return true;
  const std::string calls = TakeCalls(choices_[index], event);
  return Show(std::move(event), calls);
}

std::string OpenAiStream::TakeCalls(Choice& choice, TokensEvent& event) {
  if (options_.max_tool_calls == 0) return "";
  ToolCallReader::Piece piece = choice.reader.Push(event.text);
  event.text = std::move(piece.content);
  return WriteCalls(piece.calls, event.choice, choice);
}

std::string OpenAiStream::WriteCalls(const std::vector<MadeToolCall>& calls, int32_t index,
                                     Choice& choice) {
  std::string out;
  for (const MadeToolCall& call : calls) {
    if (!out.empty()) out += ',';
    out += '{';
    if (options_.stream) {
      out += R"("index":)";
      AppendJsonInt(choice.num_calls, out);
      out += ',';
    }
    out += R"("id":)";
    AppendJsonString(absl::StrFormat("call_%s_%d_%d", options_.id, index, choice.num_calls++), out);
    out += R"(,"type":"function","function":{"name":)";
    AppendJsonString(call.name, out);
    out += R"(,"arguments":)";
    AppendJsonString(call.arguments, out);
    out += "}}";
  }
  return out;
}

bool OpenAiStream::Show(TokensEvent event, const std::string& calls) {
  Choice& choice = choices_[static_cast<size_t>(event.choice)];
  if (!options_.stream) {
    if (!calls.empty()) choice.calls += (choice.calls.empty() ? "" : ",") + calls;
    choice.text += event.text;
    for (TokenLogprob& logprob : event.token_logprobs) {
      choice.logprobs.push_back(std::move(logprob));
    }
    return true;
  }
  const bool is_empty = event.text.empty() && event.token_logprobs.empty() && calls.empty();
  if (is_empty) return true;       // half a character
  if (!choice.logprobs.empty()) {  // the prompt's, with the first tokens
    std::swap(choice.logprobs, event.token_logprobs);
    for (TokenLogprob& logprob : choice.logprobs)
      event.token_logprobs.push_back(std::move(logprob));
    choice.logprobs.clear();
  }
  AppendChunk(choice, event, calls, "");
  return Flush();
}

bool OpenAiStream::OnFinish(const FinishEvent& event) {
  if (event.reason == FinishReason::kError || event.reason == FinishReason::kCancelled) {
    return Fail(!event.status.ok() ? event.status : Cancelled("request: cancelled"));
  }
  const auto index = static_cast<size_t>(event.choice);
  if (index >= choices_.size()) return true;
  Choice& choice = choices_[index];
  if (options_.max_tool_calls > 0) {
    TokensEvent rest;
    rest.choice = event.choice;
    rest.text = choice.reader.Flush().content;
    if (!Show(std::move(rest), "")) return false;
  }
  choice.finish = FinishName(event.reason);
  if (choice.finish == "stop" && choice.reader.num_calls() > 0) choice.finish = "tool_calls";
  timings_ = event.timings;
  usage_.prompt_tokens = event.usage.prompt_tokens;
  usage_.cached_tokens = event.usage.cached_tokens;
  usage_.completion_tokens += event.usage.completion_tokens;
  const bool last = ++num_finished_ == options_.num_choices;
  if (options_.stream) {
    TokensEvent end;
    end.choice = event.choice;
    AppendChunk(choice, end, "", choice.finish);
    if (last && options_.include_usage) {
      buffer_ += "data: " + head_ + "]";
      AppendUsage(buffer_);
      buffer_ += "}\n\n";
    }
    if (last) buffer_ += "data: [DONE]\n\n";
    if (!Flush()) return false;
  }
  if (last) FinishAll();
  return true;
}

bool OpenAiStream::Fail(const Status& status) {
  failed_ = true;
  if (!exchange_->started()) {
    RespondError(status, *exchange_);
    return false;
  }
  buffer_ += "data: " + OpenAiErrorBody(status) + "\n\ndata: [DONE]\n\n";
  Flush();
  exchange_->EndStream();
  return false;
}

void OpenAiStream::FinishAll() {
  if (options_.stream) {
    exchange_->EndStream();
    return;
  }
  std::string body = head_;
  for (size_t i = 0; i < choices_.size(); ++i) {
    if (i > 0) body += ',';
    AppendWholeChoice(static_cast<int32_t>(i), choices_[i], body);
  }
  body += ']';
  AppendUsage(body);
  AppendServed(adapter_, timings_, body);
  body += '}';
  exchange_->Respond(200, "application/json", body);
}

void OpenAiStream::AppendUsage(std::string& out) const {
  out += R"(,"usage":{"prompt_tokens":)";
  AppendJsonInt(usage_.prompt_tokens, out);
  out += R"(,"completion_tokens":)";
  AppendJsonInt(usage_.completion_tokens, out);
  out += R"(,"total_tokens":)";
  AppendJsonInt(usage_.prompt_tokens + usage_.completion_tokens, out);
  out += R"(,"prompt_tokens_details":{"cached_tokens":)";
  AppendJsonInt(usage_.cached_tokens, out);
  out += "}}";
}

void OpenAiStream::AppendChunk(Choice& choice, const TokensEvent& tokens, const std::string& calls,
                               const std::string& finish) {
  buffer_ += "data: ";
  buffer_ += head_;
  buffer_ += R"({"index":)";
  AppendJsonInt(tokens.choice, buffer_);
  if (options_.kind == OpenAiKind::kCompletion) {
    buffer_ += R"(,"text":)";
    AppendJsonString(tokens.text, buffer_);
  } else {
    buffer_ += R"(,"delta":{)";
    if (!choice.opened) buffer_ += R"("role":"assistant",)";
    choice.opened = true;
    buffer_ += R"("content":)";
    AppendJsonString(tokens.text, buffer_);
    if (!calls.empty()) buffer_ += R"(,"tool_calls":[)" + calls + "]";
    buffer_ += '}';
  }
  buffer_ += R"(,"logprobs":)";
  AppendLogprobs(tokens.token_logprobs, choice, buffer_);
  buffer_ += R"(,"finish_reason":)";
  buffer_ += finish.empty() ? "null" : "\"" + finish + "\"";
  buffer_ += options_.include_usage ? R"(}],"usage":null)" : "}]";
  if (!finish.empty()) AppendServed(adapter_, timings_, buffer_);
  buffer_ += "}\n\n";
}

void OpenAiStream::AppendWholeChoice(int32_t index, Choice& choice, std::string& out) {
  out += R"({"index":)";
  AppendJsonInt(index, out);
  if (options_.kind == OpenAiKind::kCompletion) {
    out += R"(,"text":)";
    AppendJsonString(choice.text, out);
  } else {
    out += R"(,"message":{"role":"assistant","content":)";
    if (choice.calls.empty() || !choice.text.empty()) {
      AppendJsonString(choice.text, out);
    } else {
      out += "null";
    }
    if (!choice.calls.empty()) out += R"(,"tool_calls":[)" + choice.calls + "]";
    out += '}';
  }
  out += R"(,"logprobs":)";
  AppendLogprobs(choice.logprobs, choice, out);
  out += R"(,"finish_reason":")" + choice.finish + "\"}";
}

void OpenAiStream::AppendLogprobs(const std::vector<TokenLogprob>& logprobs, Choice& choice,
                                  std::string& out) {
  if (!options_.logprobs || logprobs.empty()) {
    out += "null";
  } else if (options_.kind == OpenAiKind::kChat) {
    AppendChatLogprobs(logprobs, out);
  } else {
    AppendCompletionLogprobs(logprobs, choice, out);
  }
}

void OpenAiStream::AppendCompletionLogprobs(const std::vector<TokenLogprob>& logprobs,
                                            Choice& choice, std::string& out) {
  std::string tokens;
  std::string values;
  std::string tops;
  std::string offsets;
  for (const TokenLogprob& logprob : logprobs) {
    const char* comma = tokens.empty() ? "" : ",";
    const std::string text = options_.token_text(logprob.token_id);
    tokens += comma;
    AppendJsonString(text, tokens);
    values += comma;
    AppendJsonNumber(logprob.logprob, values);
    offsets += comma;
    AppendJsonInt(choice.text_offset, offsets);
    for (char c : text) choice.text_offset += (c & 0xC0) != 0x80;
    tops += comma;
    tops += '{';
    for (size_t i = 0; i < logprob.top.size(); ++i) {
      if (i > 0) tops += ',';
      AppendJsonString(options_.token_text(logprob.top[i].token_id), tops);
      tops += ':';
      AppendJsonNumber(logprob.top[i].logprob, tops);
    }
    tops += '}';
  }
  out += R"({"tokens":[)" + tokens + R"(],"token_logprobs":[)" + values + R"(],"top_logprobs":[)" +
         tops + R"(],"text_offset":[)" + offsets + "]}";
}

void OpenAiStream::AppendChatLogprobs(const std::vector<TokenLogprob>& logprobs, std::string& out) {
  const auto append = [&](int32_t id, float value) {
    const std::string text = options_.token_text(id);
    out += R"({"token":)";
    AppendJsonString(text, out);
    out += R"(,"logprob":)";
    AppendJsonNumber(value, out);
    out += R"(,"bytes":[)";
    for (size_t i = 0; i < text.size(); ++i) {
      if (i > 0) out += ',';
      AppendJsonInt(static_cast<unsigned char>(text[i]), out);
    }
    out += ']';
  };
  out += R"({"content":[)";
  for (size_t i = 0; i < logprobs.size(); ++i) {
    if (i > 0) out += ',';
    append(logprobs[i].token_id, logprobs[i].logprob);
    out += R"(,"top_logprobs":[)";
    for (size_t k = 0; k < logprobs[i].top.size(); ++k) {
      if (k > 0) out += ',';
      append(logprobs[i].top[k].token_id, logprobs[i].top[k].logprob);
      out += '}';
    }
    out += "]}";
  }
  out += "]}";
}

bool OpenAiStream::Flush() {
  if (!exchange_->started()) exchange_->BeginStream("text/event-stream");
  const bool sent = exchange_->Write(buffer_);
  buffer_.clear();
  if (!sent) {
    failed_ = true;
    exchange_->AbortStream();
  }
  return sent;
}

}  // namespace polyad
