#pragma once

// GenerateRequest -> RequestSpec: the one place where a client's ask is checked. Every number,
// string and list is held against its limit before anything of that size is allocated; both fronts
// pass through here (HTTP builds the same message first). Pure functions, any thread. Errors:
// INVALID_ARGUMENT or UNIMPLEMENTED naming the field.

#include <algorithm>
#include <cstdint>
#include <string>

#include "engine/base/status.h"
#include "engine/request/request.h"
#include "polyad/v1/inference.pb.h"

namespace polyad {

// Limits of the API beside those of engine/request/sampling_params.h.
inline constexpr int64_t kMaxPromptBytes = 4 << 20;
inline constexpr int64_t kMaxChatMessages = 2048;
inline constexpr int64_t kMaxRoleBytes = 64;
inline constexpr int64_t kMaxOutputTokens = 1 << 20;
inline constexpr int64_t kMaxDetokenizeIds = 1 << 20;
inline constexpr int64_t kMaxSaltBytes = 64;
inline constexpr int64_t kMaxSessionBytes = 256;
inline constexpr int64_t kMaxRequestIdBytes = 128;
inline constexpr int64_t kMaxAdapterWaitMs = 600'000;
inline constexpr int64_t kMaxPriority = 100;
inline constexpr int64_t kMaxEmbedInputs = 2048;
inline constexpr int64_t kMaxEmbedValues = 4 << 20;  // of all embeddings of one answer
inline constexpr int64_t kDefaultMaxTokens = 16;

// What the served model allows.
struct DecodeLimits {
  std::string model_name;  // the base model's
  int64_t vocab_size = 0;
  int64_t max_context = 0;  // tokens of prompt + output
  int64_t max_prompt_bytes = kMaxPromptBytes;
  int64_t hidden_size = 0;      // values of an embedding
  int64_t longest_context = 0;  // of adapters that scale theirs; where larger, it bounds requests

  int64_t most_tokens() const { return std::max(max_context, longest_context); }
};

StatusOr<RequestSpec> DecodeGenerate(const v1::GenerateRequest& request,
                                     const DecodeLimits& limits);

// The reference an engine takes: "" for the base model, else name, alias or name@version. `field`
// is blamed.
StatusOr<std::string> DecodeModel(std::string_view model, const DecodeLimits& limits,
                                  std::string_view field);

Status CheckTokenize(const v1::TokenizeRequest& request, const DecodeLimits& limits);

// Ids of `ids`, each in [0, vocab_size).
StatusOr<std::vector<int32_t>> DecodeTokenIds(std::string_view field,
                                              const google::protobuf::RepeatedField<int32_t>& ids,
                                              int64_t max_count, int64_t vocab_size);

}  // namespace polyad
