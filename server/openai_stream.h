#pragma once

// A completion's or chat's events on their way to an HTTP client: server-sent events as they come,
// or one JSON body at the end. The engine's ResponseSink; its events arrive on the delivery thread
// alone, which writes each as one chunk, built by appending, straight to the socket. Never blocks.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/request/token_event.h"
#include "server/http/http_exchange.h"
#include "server/openai_request.h"
#include "server/tool_call_reader.h"

namespace polyad {

class OpenAiStream final : public ResponseSink {
 public:
  struct Options {
    OpenAiKind kind = OpenAiKind::kCompletion;
    bool stream = false;
    bool include_usage = false;
    bool echo = false;
    bool logprobs = false;
    int32_t num_choices = 1;
    int64_t max_tool_calls = 0;  // to be read out of the text; 0: it is text
    std::string id;              // "cmpl-..." or "chatcmpl-..."
    std::string model;           // as the client named it
    int64_t created_unix_s = 0;
    int32_t first_prompt_token = 0;                  // for echo with logprobs
    std::function<std::string(int32_t)> token_text;  // for logprobs
  };

  OpenAiStream(Options options, std::shared_ptr<HttpExchange> exchange);

  bool OnEvent(TokenEvent event) override;

 private:
  struct Choice {
    explicit Choice(int64_t max_tool_calls) : reader(max_tool_calls) {}
    ToolCallReader reader;
    int64_t num_calls = 0;               // that were sent
    std::string calls;                   // JSON of them, where not streamed
    std::string text;                    // the whole of it, where not streamed
    std::string finish;                  // reason; empty while open
    std::vector<TokenLogprob> logprobs;  // where not streamed
    int64_t text_offset = 0;             // characters so far, for logprobs
    bool opened = false;                 // the chat role was sent
  };

  bool OnPrompt(PromptEvent event);
  bool OnTokens(TokensEvent event);
  bool OnFinish(const FinishEvent& event);
  bool Fail(const Status& status);
  void FinishAll();

  // Appends {"id":...,"choices":[ -- what every body begins with.
  void BeginBody(std::string& out) const;
  void AppendUsage(std::string& out) const;
  // The event's text without the calls in it, which are returned as JSON.
  std::string TakeCalls(Choice& choice, TokensEvent& event);
  std::string WriteCalls(const std::vector<MadeToolCall>& calls, int32_t index, Choice& choice);
  bool Show(TokensEvent event, const std::string& calls);
  void AppendChunk(Choice& choice, const TokensEvent& tokens, const std::string& calls,
                   const std::string& finish);
  void AppendLogprobs(const std::vector<TokenLogprob>& logprobs, Choice& choice, std::string& out);
  void AppendCompletionLogprobs(const std::vector<TokenLogprob>& logprobs, Choice& choice,
                                std::string& out);
  void AppendChatLogprobs(const std::vector<TokenLogprob>& logprobs, std::string& out);
  void AppendWholeChoice(int32_t index, Choice& choice, std::string& out);
  bool Flush();

  const Options options_;
  const std::shared_ptr<HttpExchange> exchange_;
  std::string head_;    // of a chunk, up to its choices
  std::string buffer_;  // of the write being made
  std::vector<Choice> choices_;
  Usage usage_;
  AdapterIdentity adapter_;
  Timings timings_;
  int32_t num_finished_ = 0;
  bool failed_ = false;
};

}  // namespace polyad
