#pragma once

// Token ids to text, one at a time: the pieces that Push returns, joined, are what `tokenizers`
// decodes from the whole sequence. Only complete UTF-8 leaves; bytes that a later token may
// complete are held back, and what can never be completed becomes U+FFFD as there. A run of
// byte-fallback tokens is held until it ends, since one bad byte makes the whole run U+FFFD. One
// StreamDetokenizer per stream, one thread; the tokenizer must outlive it.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/tokenizer.h"

namespace polyad {

class StreamDetokenizer {
 public:
  StreamDetokenizer(const Tokenizer& tokenizer, bool skip_special_tokens);

  // The text that is now certain. An id without a token contributes nothing.
  std::string Push(int32_t id);

  // The rest, at the end of the sequence; call it once.
  std::string Flush();

 private:
  struct StageState {
    std::string held;  // bytes or characters that may still change
    int stripped = 0;
    bool done_stripping = false;
    bool started = false;
  };

  void Feed(size_t stage_index, std::string_view token);
  void FeedBytes(size_t stage_index, std::string_view token);
  void FeedFallback(size_t stage_index, std::string_view token);
  void FeedStrip(size_t stage_index, std::string_view token);
  void FeedMetaspace(size_t stage_index, std::string_view token);
  void FlushStage(size_t stage_index);
  void FlushFallback(size_t stage_index);

  const Tokenizer& tokenizer_;
  const DecoderPlan& plan_;
  bool skip_special_tokens_;
  std::vector<StageState> states_;
  std::string ready_;
};

// The whole sequence at once.
std::string Decode(const Tokenizer& tokenizer, std::span<const int32_t> ids,
                   bool skip_special_tokens);

}  // namespace polyad
