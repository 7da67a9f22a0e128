#pragma once

// One row of logits to one token: a pure function of the row, the parameters, the tokens so far and
// (seed, choice, position), whoever shares the step. Order of treatment: allowed ids, the mask of a
// constraint and minimum length, logit bias, penalties, then the largest logit (temperature 0) or
// temperature, min-p, top-k, top-p and one draw. Meanings follow vLLM and transformers: the
// repetition penalty divides positive and multiplies negative logits; top-p keeps the smallest set
// of the likeliest tokens whose probability reaches p. Logprobs are of the raw row. Ties go to the
// lowest id. A row without a finite largest logit is INTERNAL, one of which a constraint leaves
// nothing FAILED_PRECONDITION. A Sampler is scratch memory only: one per thread.

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "engine/base/status.h"
#include "engine/request/sampling_params.h"
#include "engine/request/token_event.h"
#include "kernels/api/backend.h"

namespace polyad {

struct SampleInput {
  std::span<const float> logits;  // [vocab_size]
  std::span<const int32_t> prompt{};
  std::span<const int32_t> output{};  // tokens chosen so far; the position is prompt + output
  std::span<const int32_t>
      forbidden{};                   // ids that may not be chosen here (stops before min_tokens)
  std::span<const uint64_t> mask{};  // one bit for each id that may be chosen; empty: all may
  std::span<const int32_t> beside_mask{};  // ids that may be chosen too
  int32_t choice = 0;
};

// The draw that Sample makes where params.plain_draw() and the input has neither mask nor forbidden
// ids; its row is left to be said.
DrawArgs DrawOf(const SampleInput& input, const SamplingParams& params);

class Sampler {
 public:
  explicit Sampler(int64_t vocab_size);

  StatusOr<int32_t> Sample(const SampleInput& input, const SamplingParams& params);

  // The raw distribution's verdict on `token`, with the `num_top` likeliest tokens beside it.
  StatusOr<TokenLogprob> Score(std::span<const float> logits, int32_t token, int32_t num_top);

 private:
  struct Candidate {
    int32_t token_id;
    float weight;  // probability before normalising
  };

  void Restrict(const SampleInput& input, const SamplingParams& params);
  void ApplyMask(const SampleInput& input);
  void Penalise(const SampleInput& input, const SamplingParams& params);
  int32_t Draw(const SamplingParams& params, double uniform);
  int32_t DrawFromAll(double target);
  void GatherCandidates(const SamplingParams& params);
  void KeepTop(const SamplingParams& params, double total);

  std::vector<float> row_;      // [vocab_size] working copy
  std::vector<float> weights_;  // [vocab_size]
  std::vector<double> block_sums_;
  std::vector<int32_t> counts_;  // [vocab_size] zero between calls
  std::vector<float> beside_;    // logits of SampleInput::beside_mask
  std::vector<Candidate> candidates_;
  std::vector<int32_t> order_;
};

}  // namespace polyad
