#pragma once

// The components of a tokenizer.json, each turned from JSON into our own data, or refused by its
// name. Used by tokenizer_json.cc alone; pure functions. Format: tokenizers 0.2x.

#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <vector>

#include "engine/base/status.h"
#include "engine/text/added_tokens.h"
#include "engine/text/decoder_plan.h"
#include "engine/text/normalizer.h"
#include "engine/text/pretokenizer.h"

namespace polyad {

StatusOr<std::vector<NormalizerStep>> ParseNormalizer(const nlohmann::json& node);
StatusOr<std::vector<PreTokenizerStep>> ParsePreTokenizer(const nlohmann::json& node);
StatusOr<std::vector<DecoderStage>> ParseDecoder(const nlohmann::json& node);
StatusOr<std::vector<AddedToken>> ParseAddedTokens(const nlohmann::json& node);

struct PostProcessor {
  std::vector<int32_t> prefix, suffix;
};
StatusOr<PostProcessor> ParsePostProcessor(const nlohmann::json& node);

// GPT-2's own pattern, which ByteLevel uses where use_regex is set.
extern const std::string_view kGpt2Pattern;

}  // namespace polyad
