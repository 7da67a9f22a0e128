// Any bytes as a GenerateRequest: parsed, decoded, and what is accepted held against the limits.

#include <cmath>
#include <cstdint>
#include <cstdlib>

#include "server/field_error.h"
#include "server/request_codec.h"

namespace {

void Require(bool condition) {
  if (!condition) std::abort();
}

void CheckAccepted(const polyad::RequestSpec& spec, const polyad::DecodeLimits& limits) {
  const polyad::SamplingParams& sampling = spec.sampling;
  Require(sampling.temperature >= 0 && sampling.temperature <= 100);
  Require(sampling.top_p > 0 && sampling.top_p <= 1);
  Require(sampling.num_choices >= 1 && sampling.num_choices <= polyad::kMaxChoices);
  Require(sampling.logit_bias.size() <= static_cast<size_t>(polyad::kMaxLogitBias));
  for (const auto& [id, bias] : sampling.logit_bias) {
    Require(id >= 0 && id < limits.vocab_size && std::isfinite(bias));
  }
  Require(spec.stopping.max_tokens <= limits.max_context);
  Require(spec.stopping.min_tokens <= spec.stopping.max_tokens);
  Require(spec.stopping.stop.size() <= static_cast<size_t>(polyad::kMaxStopStrings));
  if (const auto* tokens = std::get_if<polyad::TokenPrompt>(&spec.prompt)) {
    Require(!tokens->ids.empty());
    for (int32_t id : tokens->ids) Require(id >= 0 && id < limits.vocab_size);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  polyad::v1::GenerateRequest request;
  if (!request.ParseFromArray(data, static_cast<int>(size))) return 0;
  polyad::DecodeLimits limits;
  limits.model_name = "base-model";
  limits.vocab_size = 1000;
  limits.max_context = 512;
  const auto spec = polyad::DecodeGenerate(request, limits);
  if (spec.ok()) {
    CheckAccepted(*spec, limits);
  } else {
    Require(!polyad::BlamedField(spec.status()).empty());
  }
  return 0;
}
