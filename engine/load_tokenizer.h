#pragma once

// From what a model's files carry (engine/spec) to what tokenises (engine/text): the one place that
// knows both. Called once at load.

#include <functional>
#include <memory>
#include <vector>

#include "engine/base/status.h"
#include "engine/request/request.h"
#include "engine/spec/model_files.h"
#include "engine/text/tokenizer.h"

namespace polyad {

using EncodeChatPrompt = std::function<StatusOr<std::vector<int32_t>>(const ChatPrompt&)>;

// FAILED_PRECONDITION where the model has none.
StatusOr<std::unique_ptr<const Tokenizer>> LoadTokenizer(const TokenizerFiles& files);

// Encodes by the prompt's own chat template, else the model's; where that is missing or is one that
// we do not serve, the call says so. `tokenizer` must outlive the result.
EncodeChatPrompt LoadChat(const TokenizerFiles& files, const Tokenizer& tokenizer);

}  // namespace polyad
