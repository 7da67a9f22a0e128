#pragma once

// Reads tokenizer.json, the file that Hugging Face `tokenizers` writes. Called once at load by the
// model loader; the text is bounded first (64 MiB, depth 32, 1 M tokens, 2 M merges). Components
// are refused by name when unknown, so that no text is ever tokenised in a way that the model was
// not trained with. "truncation" and "padding" are the training script's and are not applied.
// Format: tokenizers 0.2x.

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "engine/base/status.h"
#include "engine/text/tokenizer.h"

namespace polyad {

inline constexpr size_t kMaxTokenizerJsonBytes = size_t{64} << 20;

// tokenizer_config_json names bos_token and eos_token; it may be empty.
StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizerJson(std::string_view tokenizer_json_text,
                                                       std::string_view tokenizer_config_json_text);

// The "chat_template" of a tokenizer_config.json: a string, or in a list of named ones the one
// called "default".
StatusOr<std::optional<std::string>> ChatTemplateFromConfig(
    std::string_view tokenizer_config_json_text);

}  // namespace polyad
