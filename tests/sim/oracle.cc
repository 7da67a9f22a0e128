#include "tests/sim/oracle.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "engine/adapters/adapter_version.h"
#include "engine/base/check.h"
#include "engine/model/sampler.h"
#include "tests/sim/fake_model.h"
#include "tests/sim/fake_tokenizer.h"

namespace polyad {
namespace {

// Of the prompt's or the output's token `index`.
int64_t AdapterOf(const Request& request, size_t index) {
  const bool acts = static_cast<int64_t>(index) >= request.adapter_begin;
  return request.adapter == nullptr || !acts ? -1 : request.adapter->id().value();
}

int64_t NumVirtual(const Request& request) {
  return request.adapter == nullptr ? 0 : request.adapter->num_virtual_tokens();
}

int64_t NumPadding(const Request& request) {
  return request.adapter == nullptr ? 0 : request.adapter->num_padding();
}

// Of the soft prompt.
std::vector<FakeKey> FirstKeys(const Request& request) {
  std::vector<FakeKey> keys;
  for (int64_t i = 0; i < NumVirtual(request); ++i) {
    keys.push_back({VirtualToken(i), AdapterOf(request, 0)});
  }
  return keys;
}

bool Holds(const std::vector<int32_t>& ids, int32_t id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

// The longest stop string that `text` ends with, or null.
const std::string* StopAtEnd(const std::string& text, const std::vector<std::string>& stops) {
  const std::string* longest = nullptr;
  for (const std::string& stop : stops) {
    if (text.ends_with(stop) && (longest == nullptr || stop.size() > longest->size()))
      longest = &stop;
  }
  return longest;
}

}  // namespace

OracleAnswer AnswerAlone(const Request& request, int32_t choice, const OracleModel& model) {
  const FakeTokenizer tokenizer;
  const StoppingParams& stopping = request.stopping;
  Sampler sampler(kFakeVocab);
  OracleAnswer answer;
  std::vector<FakeKey> keys = FirstKeys(request);
  const size_t num_prompt = request.prompt_tokens.size();
  for (size_t i = 0; i < num_prompt; ++i) {
    keys.push_back({request.prompt_tokens[i], AdapterOf(request, i)});
  }
  std::string late_text;  // where stop strings count: after min_tokens
  while (static_cast<int64_t>(answer.token_ids.size()) < stopping.max_tokens &&
         NumVirtual(request) - NumPadding(request) +
                 static_cast<int64_t>(num_prompt + answer.token_ids.size()) <
             model.max_context) {
    std::vector<float> logits(kFakeVocab);
    FakeLogits(FakeState(keys, model.sliding_window), logits.data());
    std::vector<int32_t> stop_ids = stopping.stop_token_ids;
    if (!stopping.ignore_eos) {
      stop_ids.insert(stop_ids.end(), model.eos_token_ids.begin(), model.eos_token_ids.end());
    }
    const bool early = static_cast<int64_t>(answer.token_ids.size()) < stopping.min_tokens;
    SampleInput input{
        .logits = logits, .prompt = request.prompt_tokens, .output = answer.token_ids};
    if (early) input.forbidden = stop_ids;
    input.choice = choice;
    const StatusOr<int32_t> token = sampler.Sample(input, request.sampling);
    POLYAD_CHECK(token.ok(), "the oracle's rows are finite");
    if (request.output.logprobs) {
      answer.token_logprobs.push_back(*sampler.Score(logits, *token, *request.output.logprobs));
    }
    answer.token_ids.push_back(*token);
    keys.push_back({*token, AdapterOf(request, num_prompt + answer.token_ids.size() - 1)});
    if (!early && Holds(stop_ids, *token)) {
      answer.reason = FinishReason::kStop;
      if (Holds(stopping.stop_token_ids, *token)) answer.stop_reason = std::to_string(*token);
      if (stopping.include_stop && *token != 0) answer.text += tokenizer.TokenText(*token);
      break;
    }
    if (*token == 0) continue;  // special, and skipped
    answer.text += tokenizer.TokenText(*token);
    if (early) continue;
    late_text += tokenizer.TokenText(*token);
    if (const std::string* stop = StopAtEnd(late_text, stopping.stop)) {
      answer.reason = FinishReason::kStop;
      answer.stop_reason = *stop;
      if (!stopping.include_stop) answer.text.resize(answer.text.size() - stop->size());
      break;
    }
  }
  return answer;
}

std::vector<TokenLogprob> ScorePromptAlone(const Request& request, const OracleModel& model) {
  Sampler sampler(kFakeVocab);
  std::vector<TokenLogprob> scored;
  std::vector<FakeKey> keys = FirstKeys(request);
  for (size_t i = 0; i + 1 < request.prompt_tokens.size(); ++i) {
    keys.push_back({request.prompt_tokens[i], AdapterOf(request, i)});
    std::vector<float> logits(kFakeVocab);
    FakeLogits(FakeState(keys, model.sliding_window), logits.data());
    scored.push_back(
        *sampler.Score(logits, request.prompt_tokens[i + 1], *request.output.prompt_logprobs));
  }
  return scored;
}

std::vector<float> EmbedAlone(const Request& request, const OracleModel& model) {
  const EmbeddingParams& params = *request.embedding;
  std::vector<FakeKey> keys = FirstKeys(request);
  std::array<double, kFakeHidden> sums = {};
  for (size_t i = 0; i < request.prompt_tokens.size(); ++i) {
    keys.push_back({request.prompt_tokens[i], AdapterOf(request, i)});
    std::array<float, kFakeHidden> hidden = {};
    FakeHidden(FakeState(keys, model.sliding_window), hidden.data());
    if (params.pooling == EmbeddingParams::Pooling::kLast) sums = {};
    for (size_t k = 0; k < sums.size(); ++k) sums[k] += double{hidden[k]};
  }
  const bool mean = params.pooling == EmbeddingParams::Pooling::kMean;
  const auto count = mean ? static_cast<double>(request.prompt_tokens.size()) : 1.0;
  const auto size = params.dimensions == 0 ? sums.size() : static_cast<size_t>(params.dimensions);
  double square = 0;
  for (size_t k = 0; k < size; ++k) square += sums[k] / count * (sums[k] / count);
  std::vector<float> out;
  for (size_t k = 0; k < size; ++k) {
    const double scale = params.normalize ? 1.0 / std::sqrt(square) : 1.0;
    out.push_back(static_cast<float>(sums[k] / count * scale));
  }
  return out;
}

}  // namespace polyad
