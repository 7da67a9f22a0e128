#pragma once

// What comes back from the engine for a request, in order: one PromptEvent, then TokensEvents per
// choice, then one FinishEvent per choice. Token events carry ids; text is added by delivery, which
// turns them into OutputEvents.

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"

namespace polyad {

struct TokenAlternative {
  int32_t token_id = 0;
  float logprob = 0.0f;
};

struct TokenLogprob {
  int32_t token_id = 0;
  float logprob =
      0.0f;          // natural log, of the model's distribution before temperature and truncation
  int32_t rank = 0;  // 1 is the most likely token
  std::vector<TokenAlternative> top;
};

enum class FinishReason { kStop, kLength, kCancelled, kError };

struct Usage {
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;
  int64_t completion_tokens = 0;
};

struct Timings {  // milliseconds
  double queue_ms = 0;
  double adapter_wait_ms = 0;
  double prefill_ms = 0;
  double decode_ms = 0;
};

struct AdapterIdentity {
  std::string name;  // the base model's name where no adapter applies
  int64_t version = 0;
  std::string digest;  // hex SHA-256; empty for the base
};

struct PromptEvent {
  int64_t num_prompt_tokens = 0;
  int64_t num_cached_tokens = 0;
  std::vector<TokenLogprob>
      token_logprobs;            // empty unless asked for; entry i is prompt token i + 1
  std::vector<float> embedding;  // empty unless asked for (EmbeddingParams)
  AdapterIdentity adapter;
};

struct TokensEvent {
  int32_t choice = 0;
  std::vector<int32_t> token_ids;
  std::vector<TokenLogprob> token_logprobs;  // empty unless asked for
  std::string text;                          // filled by delivery; complete UTF-8
};

struct FinishEvent {
  int32_t choice = 0;
  FinishReason reason = FinishReason::kStop;
  std::string stop_reason;  // the stop string, or the stop token's id, or empty
  Usage usage;
  Timings timings;
  absl::Status status;  // why, where reason is kError
};

using TokenEvent = std::variant<PromptEvent, TokensEvent, FinishEvent>;

// Where a request's events go. Called on the delivery thread, in order, never after the FinishEvent
// of every choice. Must not block: a sink that cannot keep up returns false, and the request is
// cancelled.
class ResponseSink {
 public:
  virtual ~ResponseSink() = default;
  virtual bool OnEvent(TokenEvent event) = 0;
};

}  // namespace polyad
