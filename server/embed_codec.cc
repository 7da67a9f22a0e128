#include "server/embed_codec.h"

#include <utility>

#include "server/event_codec.h"
#include "server/field_error.h"

namespace polyad {
namespace {

StatusOr<EmbeddingParams> DecodeParams(const v1::EmbedRequest& request,
                                       const DecodeLimits& limits) {
  EmbeddingParams params;
  POLYAD_RETURN_IF_ERROR(
      CheckRange("pooling", int64_t{request.pooling()}, v1::Pooling_MIN, v1::Pooling_MAX));
  if (request.pooling() == v1::MEAN) params.pooling = EmbeddingParams::Pooling::kMean;
  params.normalize = !request.has_normalize() || request.normalize();
  POLYAD_RETURN_IF_ERROR(
      CheckRange("dimensions", int64_t{request.dimensions()}, 0, limits.hidden_size));
  params.dimensions = request.dimensions();
  return params;
}

Status CheckInputs(const v1::EmbedRequest& request, const DecodeLimits& limits) {
  const auto count = int64_t{request.inputs_size()};
  POLYAD_RETURN_IF_ERROR(CheckRange("inputs", count, 1, kMaxEmbedInputs));
  const int64_t width = request.dimensions() > 0 ? request.dimensions() : limits.hidden_size;
  POLYAD_RETURN_IF_ERROR(CheckCount("inputs", static_cast<size_t>(count * width), kMaxEmbedValues,
                                    "values in all embeddings"));
  size_t bytes = 0;
  for (const v1::EmbedInput& input : request.inputs()) {
    bytes +=
        input.text().size() + sizeof(int32_t) * static_cast<size_t>(input.token_ids().ids_size());
  }
  return CheckCount("inputs", bytes, static_cast<size_t>(limits.max_prompt_bytes), "bytes in all");
}

StatusOr<TokenPrompt> DecodeIds(const v1::TokenIds& ids, const DecodeLimits& limits) {
  if (ids.ids_size() == 0) return FieldError("inputs.token_ids", "at least 1 token id", "0");
  TokenPrompt prompt;
  POLYAD_ASSIGN_OR_RETURN(prompt.ids, DecodeTokenIds("inputs.token_ids", ids.ids(),
                                                     limits.most_tokens(), limits.vocab_size));
  return prompt;
}

}  // namespace

StatusOr<std::vector<RequestSpec>> DecodeEmbed(const v1::EmbedRequest& request,
                                               const DecodeLimits& limits) {
  POLYAD_RETURN_IF_ERROR(CheckInputs(request, limits));
  v1::GenerateRequest shared;  // what an input has in common with a prompt that is only read
  shared.set_request_id(request.request_id());
  shared.set_model(request.model());
  *shared.mutable_adapters() = request.adapters();
  *shared.mutable_cache() = request.cache();
  shared.set_priority(request.priority());
  shared.set_session(request.session());
  shared.set_max_adapter_wait_ms(request.max_adapter_wait_ms());
  shared.mutable_sampling()->set_seed(0);
  shared.mutable_stopping()->set_max_tokens(0);
  shared.set_text("");
  POLYAD_ASSIGN_OR_RETURN(RequestSpec spec, DecodeGenerate(shared, limits));
  POLYAD_ASSIGN_OR_RETURN(spec.embedding, DecodeParams(request, limits));
  std::vector<RequestSpec> specs;
  specs.reserve(static_cast<size_t>(request.inputs_size()));
  for (const v1::EmbedInput& input : request.inputs()) {
    if (input.input_case() == v1::EmbedInput::kText) {
      spec.prompt = TextPrompt{input.text()};
    } else if (input.input_case() == v1::EmbedInput::kTokenIds) {
      POLYAD_ASSIGN_OR_RETURN(spec.prompt, DecodeIds(input.token_ids(), limits));
    } else {
      return FieldError("inputs", "text or token_ids in each", "none");
    }
    specs.push_back(spec);
  }
  return specs;
}

void EncodeEmbed(const EmbedResult& result, const std::string& request_id,
                 v1::EmbedResponse& response) {
  for (size_t i = 0; i < result.embeddings.size(); ++i) {
    v1::Embedding* embedding = response.add_embeddings();
    embedding->mutable_values()->Add(result.embeddings[i].begin(), result.embeddings[i].end());
    embedding->set_num_tokens(result.num_tokens[i]);
  }
  EncodeAdapter(result.adapter, *response.mutable_adapter());
  EncodeUsage(result.usage, *response.mutable_usage());
  EncodeTimings(result.timings, *response.mutable_timings());
  response.set_request_id(request_id);
}

}  // namespace polyad
