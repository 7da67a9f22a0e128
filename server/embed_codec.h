#pragma once

// EmbedRequest -> one RequestSpec for each input, under the same bounds as request_codec.h and
// before anything of that size is allocated; EmbedResult -> EmbedResponse. Pure functions, any
// thread. Errors: INVALID_ARGUMENT naming the field.

#include <string>
#include <vector>

#include "engine/base/status.h"
#include "engine/request/request.h"
#include "polyad/v1/inference.pb.h"
#include "server/request_codec.h"

namespace polyad {

struct EmbedResult {
  std::vector<std::vector<float>> embeddings;  // by input
  std::vector<int64_t> num_tokens;             // likewise
  AdapterIdentity adapter;
  Usage usage;      // of all inputs
  Timings timings;  // the longest of them
};

StatusOr<std::vector<RequestSpec>> DecodeEmbed(const v1::EmbedRequest& request,
                                               const DecodeLimits& limits);

void EncodeEmbed(const EmbedResult& result, const std::string& request_id,
                 v1::EmbedResponse& response);

}  // namespace polyad
