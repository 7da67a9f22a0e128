#pragma once

// From a step's logits to tokens: rows whose pick is the plain largest logit go to the runner's
// ArgMax in runs, without a copy, and draws from rows as they are to its Draw; what is left, and
// what a runner does not draw, goes through the Sampler, requests with a constraint with its mask.
// A row that cannot be sampled is an error of its own sequence only.

#include <vector>

#include "engine/model/sampler.h"
#include "engine/model/step_runner.h"
#include "engine/runtime/step_batch.h"

namespace polyad {

struct SampledItem {
  std::vector<TokenLogprob> prompt_logprobs;  // of the prompt tokens scored in this step
  int32_t token_id = -1;                      // -1: no token was due
  std::vector<TokenLogprob> token_logprobs;   // of token_id, where asked for
  FloatRows hidden{};                         // of an embedding, until the next run
  Status status;
};

// One entry per flat.items.
std::vector<SampledItem> SampleStep(const FlatStep& flat, FloatRows logits, StepRunner& runner,
                                    Sampler& sampler);

}  // namespace polyad
