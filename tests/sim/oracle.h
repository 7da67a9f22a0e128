#pragma once

// What a request must answer, computed alone and without an engine: token by token over the fake
// model, with the stops written a second time in the plainest way.

#include <string>
#include <vector>

#include "engine/request/request.h"

namespace polyad {

struct OracleAnswer {
  std::vector<int32_t> token_ids;
  std::vector<TokenLogprob> token_logprobs;  // where asked for
  std::string text;
  FinishReason reason = FinishReason::kLength;
  std::string stop_reason;
};

struct OracleModel {
  int64_t max_context = 0;
  std::vector<int32_t> eos_token_ids;
  int64_t sliding_window = 0;  // tokens that a row sees; 0: all
};

OracleAnswer AnswerAlone(const Request& request, int32_t choice, const OracleModel& model);
std::vector<TokenLogprob> ScorePromptAlone(const Request& request, const OracleModel& model);
std::vector<float> EmbedAlone(const Request& request, const OracleModel& model);

}  // namespace polyad
