#pragma once

// OpenAI's completion and chat bodies -> GenerateRequest. Only names and JSON types are settled
// here; ranges are request_codec.h's. A field that would change the answer and is not served is
// refused by name; OpenAI's bookkeeping fields (user, store, metadata, service_tier ...) are
// accepted and mean nothing. Source: OpenAI API reference (completions, chat), and vLLM's sampling
// extensions under their names there. Pure functions, any thread.

#include <string>
#include <string_view>

#include "engine/base/status.h"
#include "polyad/v1/inference.pb.h"

namespace polyad {

enum class OpenAiKind { kCompletion, kChat };

struct OpenAiRequest {
  OpenAiKind kind = OpenAiKind::kCompletion;
  v1::GenerateRequest generate;
  std::string model;  // as the client wrote it, for the answer
  bool stream = false;
  bool include_usage = false;  // stream_options.include_usage
};

StatusOr<OpenAiRequest> ParseOpenAiRequest(OpenAiKind kind, std::string_view body);

}  // namespace polyad
