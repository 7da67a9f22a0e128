#pragma once

// How a request wants its tokens chosen, when it ends, and what it wants to see. Plain validated
// values: the codec at the edge checks ranges against these constants, the engine relies on them.
// Field names follow the API (proto).

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace polyad {

// Hard limits on what one request may ask (the API documents them; configuration can only lower
// them).
inline constexpr int64_t kMaxChoices = 16;   // n
inline constexpr int64_t kMaxLogprobs = 20;  // alternatives per token
inline constexpr int64_t kMaxStopStrings = 16;
inline constexpr int64_t kMaxStopStringBytes = 64;
inline constexpr int64_t kMaxStopTokenIds = 128;
inline constexpr int64_t kMaxLogitBias = 1024;
inline constexpr int64_t kMaxAllowedTokenIds = 1024;

struct SamplingParams {
  float temperature = 1.0f;         // [0, 100]; 0 is greedy
  int32_t top_k = 0;                // 0: off
  float top_p = 1.0f;               // (0, 1]
  float min_p = 0.0f;               // [0, 1]
  uint64_t seed = 0;                // the server draws one where the client gives none
  float repetition_penalty = 1.0f;  // (0, 10]; over prompt and output tokens
  float presence_penalty = 0.0f;    // [-2, 2]; over output tokens
  float frequency_penalty = 0.0f;   // [-2, 2]; over output tokens
  std::vector<std::pair<int32_t, float>> logit_bias{};  // token id -> [-100, 100]
  std::vector<int32_t> allowed_token_ids{};             // empty: all
  int32_t num_choices = 1;                              // n

  bool greedy() const { return temperature == 0.0f; }
  // True where the pick is the plain largest logit, so that no copy of the row is needed.
  bool plain_greedy() const { return greedy() && takes_row_as_it_is(); }
  // True where a token is drawn from the row as it is.
  bool plain_draw() const { return !greedy() && takes_row_as_it_is(); }
  bool takes_row_as_it_is() const {
    return repetition_penalty == 1.0f && presence_penalty == 0.0f && frequency_penalty == 0.0f &&
           logit_bias.empty() && allowed_token_ids.empty();
  }
};

struct StoppingParams {
  int64_t max_tokens = 16;  // 0: score the prompt only
  int64_t min_tokens = 0;   // no stop (end-of-sequence, stop ids, stop strings) before this many
  std::vector<std::string> stop;
  std::vector<int32_t> stop_token_ids;
  bool include_stop = false;
  bool ignore_eos = false;
};

struct OutputParams {
  std::optional<int32_t> logprobs;         // k best beside the chosen token, for output tokens
  std::optional<int32_t> prompt_logprobs;  // likewise for every prompt token but the first
  bool skip_special_tokens = true;
  bool echo = false;
};

// One vector for the whole prompt in place of tokens: its final hidden states (behind the final
// norm) pooled. Needs max_tokens 0 and one choice.
struct EmbeddingParams {
  enum class Pooling { kLast, kMean };  // the last prompt token's, or the mean over the prompt's
  Pooling pooling = Pooling::kLast;
  bool normalize = true;   // to length 1, of what is kept
  int32_t dimensions = 0;  // the first so many are kept; 0: all
};

struct CacheParams {
  bool bypass_prefix_cache = false;
  std::string salt;  // isolates prefix sharing; at most 64 bytes
};

}  // namespace polyad
