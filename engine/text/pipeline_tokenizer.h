#pragma once

// The one Tokenizer: added tokens, normalizer, added tokens again (those that match normalised
// text), pre-tokeniser, merges, post-processor, in tokenizers' order. The loaders
// (tokenizer_json.h, gguf_tokenizer.h) fill in the parts; nothing changes afterwards, so any thread
// may call it. A mark per byte says what a user wrote all the way down.

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/text/added_tokens.h"
#include "engine/text/bpe_model.h"
#include "engine/text/normalizer.h"
#include "engine/text/pretokenizer.h"
#include "engine/text/tokenizer.h"

namespace polyad {

struct TokenizerParts {
  std::vector<std::string> token_texts;  // by id; empty: no such token
  std::vector<AddedToken> added_tokens;
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  std::unique_ptr<BpeModel> model;
  std::vector<int32_t> prefix, suffix;  // what the post-processor adds
  DecoderPlan decoder;
  std::optional<int32_t> bos, eos;
};

// Fails where the parts contradict one another (an id without a token, too many added tokens).
StatusOr<std::unique_ptr<Tokenizer>> MakePipelineTokenizer(TokenizerParts parts);

// The byte that a token <0xHH> of a byte-fallback vocabulary stands for.
std::optional<unsigned char> ByteOfFallbackToken(std::string_view token);

// The bytes that a token contributes under a decoder, context aside (TokenBytes).
std::string BytesOfToken(const std::string& token, const DecoderPlan& decoder);

}  // namespace polyad
