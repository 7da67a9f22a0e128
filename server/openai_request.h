#pragma once

// OpenAI's completion and chat bodies -> GenerateRequest. Only names and JSON types are settled
// here; ranges are request_codec.h's. A field that would change the answer and is not served is
// refused by name; OpenAI's bookkeeping fields (user, store, metadata, service_tier ...) are
// accepted and mean nothing. Source: OpenAI API reference (completions, chat), and vLLM's sampling
// extensions under their names there. Pure functions, any thread.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/status.h"
#include "polyad/v1/inference.pb.h"
#include "server/openai_tools.h"

namespace polyad {

enum class OpenAiKind { kCompletion, kChat };

struct OpenAiRequest {
  OpenAiKind kind = OpenAiKind::kCompletion;
  v1::GenerateRequest generate;
  std::string model;  // as the client wrote it, for the answer
  bool stream = false;
  bool include_usage = false;  // stream_options.include_usage
  ToolChoice tool_choice;
  bool parallel_tool_calls = true;
  int64_t max_tool_calls = 0;  // to be read out of the answer; 0: none are looked for
};

// The fields that a body may have, sorted.
std::vector<std::string> OpenAiFields(OpenAiKind kind);

StatusOr<OpenAiRequest> ParseOpenAiRequest(OpenAiKind kind, std::string_view body);

}  // namespace polyad
