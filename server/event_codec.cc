#include "server/event_codec.h"

namespace polyad {
namespace {

void EncodeLogprobs(const std::vector<TokenLogprob>& logprobs,
                    google::protobuf::RepeatedPtrField<v1::TokenLogprob>* out) {
  for (const TokenLogprob& from : logprobs) {
    v1::TokenLogprob* to = out->Add();
    to->set_token_id(from.token_id);
    to->set_logprob(from.logprob);
    to->set_rank(from.rank);
    for (const TokenAlternative& alternative : from.top) {
      v1::TopLogprob* top = to->add_top();
      top->set_token_id(alternative.token_id);
      top->set_logprob(alternative.logprob);
    }
  }
}

void AppendTokens(const TokensEvent& tokens, v1::Delta& delta) {
  delta.mutable_text()->append(tokens.text);
  delta.mutable_token_ids()->Add(tokens.token_ids.begin(), tokens.token_ids.end());
  EncodeLogprobs(tokens.token_logprobs, delta.mutable_token_logprobs());
}

v1::Finish::Reason EncodeReason(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return v1::Finish::STOP;
    case FinishReason::kLength:
      return v1::Finish::LENGTH;
    case FinishReason::kCancelled:
      return v1::Finish::CANCELLED;
    case FinishReason::kError:
      return v1::Finish::ERROR;
  }
  return v1::Finish::ERROR;
}

void EncodePrompt(const PromptEvent& from, const std::string& request_id, v1::PromptInfo& to) {
  to.set_num_prompt_tokens(from.num_prompt_tokens);
  to.set_num_cached_tokens(from.num_cached_tokens);
  EncodeLogprobs(from.token_logprobs, to.mutable_token_logprobs());
  EncodeAdapter(from.adapter, *to.mutable_adapter());
  to.set_request_id(request_id);
}

void EncodeFinish(const FinishEvent& from, v1::Finish& to) {
  to.set_index(from.choice);
  to.set_reason(EncodeReason(from.reason));
  to.set_stop_reason(from.stop_reason);
  EncodeUsage(from.usage, *to.mutable_usage());
  EncodeTimings(from.timings, *to.mutable_timings());
}

}  // namespace

void EncodeAdapter(const AdapterIdentity& from, v1::AdapterRef& to) {
  to.set_name(from.name);
  to.set_version(from.version);
  to.set_digest(from.digest);
}

void EncodeUsage(const Usage& from, v1::Usage& to) {
  to.set_prompt_tokens(from.prompt_tokens);
  to.set_cached_tokens(from.cached_tokens);
  to.set_completion_tokens(from.completion_tokens);
}

void EncodeTimings(const Timings& from, v1::Timings& to) {
  to.set_queue_ms(from.queue_ms);
  to.set_adapter_wait_ms(from.adapter_wait_ms);
  to.set_prefill_ms(from.prefill_ms);
  to.set_decode_ms(from.decode_ms);
}

void EncodeEvent(const TokenEvent& event, const std::string& request_id,
                 v1::GenerateResponse& response) {
  if (const auto* prompt = std::get_if<PromptEvent>(&event)) {
    EncodePrompt(*prompt, request_id, *response.mutable_prompt());
  } else if (const auto* tokens = std::get_if<TokensEvent>(&event)) {
    response.mutable_delta()->set_index(tokens->choice);
    AppendTokens(*tokens, *response.mutable_delta());
  } else if (const auto* finish = std::get_if<FinishEvent>(&event)) {
    EncodeFinish(*finish, *response.mutable_finish());
  }
}

bool MergeIntoDelta(const TokensEvent& tokens, v1::GenerateResponse& last) {
  if (!last.has_delta() || last.delta().index() != tokens.choice) return false;
  AppendTokens(tokens, *last.mutable_delta());
  return true;
}

}  // namespace polyad
