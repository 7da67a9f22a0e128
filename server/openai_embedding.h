#pragma once

// OpenAI's embeddings: body -> EmbedRequest, EmbedResult -> body. Beside OpenAI's fields: pooling
// ("last", "mean"), normalize, and cache_salt, priority and request_id as for completions. Pure
// functions, any thread. Errors: INVALID_ARGUMENT naming the field.

#include <string>
#include <string_view>

#include "engine/base/status.h"
#include "polyad/v1/inference.pb.h"
#include "server/embed_codec.h"

namespace polyad {

struct OpenAiEmbedding {
  v1::EmbedRequest embed;
  bool base64 = false;  // encoding_format; else numbers
};

StatusOr<OpenAiEmbedding> ParseOpenAiEmbedding(std::string_view body);

// `model` as the client named it.
std::string OpenAiEmbeddingBody(const EmbedResult& result, const std::string& model, bool base64);

}  // namespace polyad
