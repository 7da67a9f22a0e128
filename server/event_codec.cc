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
  to.mutable_adapter()->set_name(from.adapter.name);
  to.mutable_adapter()->set_version(from.adapter.version);
  to.mutable_adapter()->set_digest(from.adapter.digest);
  to.set_request_id(request_id);
}

void EncodeFinish(const FinishEvent& from, v1::Finish& to) {
  to.set_index(from.choice);
  to.set_reason(EncodeReason(from.reason));
  to.set_stop_reason(from.stop_reason);
  v1::Usage* usage = to.mutable_usage();
  usage->set_prompt_tokens(from.usage.prompt_tokens);
  usage->set_cached_tokens(from.usage.cached_tokens);
  usage->set_completion_tokens(from.usage.completion_tokens);
  v1::Timings* timings = to.mutable_timings();
  timings->set_queue_ms(from.timings.queue_ms);
  timings->set_adapter_wait_ms(from.timings.adapter_wait_ms);
  timings->set_prefill_ms(from.timings.prefill_ms);
  timings->set_decode_ms(from.timings.decode_ms);
}

}  // namespace

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
