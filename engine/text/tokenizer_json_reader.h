#pragma once

// The JSON half of tokenizer_json.h: a bounded parse that takes the vocabulary and the merges
// straight into flat lists (a tree of a million nodes would cost ten times the file) and keeps the
// small rest as a tree.

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/base/status.h"

namespace polyad {

struct TokenizerFile {
  nlohmann::json root;  // without model.vocab and model.merges
  std::vector<std::pair<std::string, int32_t>> vocab;
  std::vector<std::pair<std::string, std::string>> merges;
  bool has_vocab = false;
};

StatusOr<TokenizerFile> ReadTokenizerFile(std::string_view text);

// A bounded parse of a small JSON object (tokenizer_config.json).
StatusOr<nlohmann::json> ReadJsonObject(std::string_view text, const char* what);

}  // namespace polyad
