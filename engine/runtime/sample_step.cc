#include "engine/runtime/sample_step.h"

#include <cmath>
#include <span>

namespace polyad {
namespace {

// The step computes the newest token, so the next one is due.
bool TokenDue(const FlatStep::Item& item) {
  const Sequence& sequence = *item.sequence;
  return item.work.first + item.work.count == sequence.num_tokens() &&
         sequence.owner->request->stopping.max_tokens > 0;
}

bool MustNotStop(const Sequence& sequence) {
  return sequence.num_output() < sequence.owner->request->stopping.min_tokens;
}

// Every id may be chosen.
bool IsFree(const Sequence& sequence) {
  return sequence.owner->request->constraint == nullptr && !MustNotStop(sequence);
}

bool TakesArgMax(const Sequence& sequence) {
  return sequence.owner->request->sampling.plain_greedy() && IsFree(sequence);
}

bool TakesDraw(const Sequence& sequence) {
  return sequence.owner->request->sampling.plain_draw() && IsFree(sequence);
}

SampleInput InputOf(const Sequence& sequence, std::span<const float> row) {
  SampleInput input;
  input.logits = row;
  input.prompt = sequence.owner->request->prompt_tokens;
  input.output = sequence.output();
  input.choice = sequence.choice;
  return input;
}

std::span<const float> RowOf(FloatRows logits, int64_t row) {
  return {logits.Row(row), static_cast<size_t>(logits.cols)};
}

Status ScorePrompt(const FlatStep::Item& item, FloatRows logits, Sampler& sampler,
                   SampledItem& out) {
  const Sequence& sequence = *item.sequence;
  const auto& asked = sequence.owner->request->output.prompt_logprobs;
  if (!asked.has_value() || sequence.choice != 0 || sequence.owner->prompt_done)
    return absl::OkStatus();
  for (int64_t row = item.sample_begin; row < item.sample_end; ++row) {
    const int64_t next = item.first_sampled + (row - item.sample_begin) + 1;
    if (next >= sequence.prompt_end()) break;
    POLYAD_ASSIGN_OR_RETURN(
        TokenLogprob scored,
        sampler.Score(RowOf(logits, row), sequence.tokens[static_cast<size_t>(next)], *asked));
    out.prompt_logprobs.push_back(std::move(scored));
  }
  return absl::OkStatus();
}

// What the request's constraint lets follow. An output may end exactly where it is complete.
Status Constrain(Sequence& sequence, SampleInput& input) {
  Constraint& constraint = *sequence.owner->request->constraint;
  POLYAD_ASSIGN_OR_RETURN(input.mask, constraint.Mask(input.output, sequence.constrained));
  if (constraint.Accepts(sequence.constrained)) {
    input.beside_mask = sequence.owner->stop_ids;
  } else {
    input.forbidden = sequence.owner->stop_ids;
  }
  return absl::OkStatus();
}

Status SampleOne(const FlatStep::Item& item, FloatRows logits, Sampler& sampler, SampledItem& out) {
  Sequence& sequence = *item.sequence;
  const Request& request = *sequence.owner->request;
  const std::span<const float> row = RowOf(logits, item.sample_end - 1);
  if (out.token_id < 0) {
    SampleInput input = InputOf(sequence, row);
    if (request.constraint != nullptr) POLYAD_RETURN_IF_ERROR(Constrain(sequence, input));
    if (MustNotStop(sequence)) input.forbidden = sequence.owner->stop_ids;
    POLYAD_ASSIGN_OR_RETURN(out.token_id, sampler.Sample(input, request.sampling));
  }
  if (!request.output.logprobs.has_value()) return absl::OkStatus();
  POLYAD_ASSIGN_OR_RETURN(TokenLogprob scored,
                          sampler.Score(row, out.token_id, *request.output.logprobs));
  out.token_logprobs.push_back(std::move(scored));
  return absl::OkStatus();
}

// Greedy picks of the rows [begin, end), which all take the largest logit.
void ArgMaxRun(FloatRows logits, int64_t begin, int64_t end, StepRunner& runner,
               std::vector<TokenScore>& best) {
  if (begin == end) return;
  runner.ArgMax(
      logits.Slice(begin, end),
      std::span(best).subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin)));
}

// Every run of neighbouring rows whose pick is the largest logit goes to the runner at once.
void PickGreedy(const FlatStep& flat, FloatRows logits, StepRunner& runner,
                std::vector<SampledItem>& sampled) {
  std::vector<TokenScore> best(static_cast<size_t>(logits.rows));
  int64_t begin = 0;
  int64_t end = 0;
  for (const FlatStep::Item& item : flat.items) {
    if (!TokenDue(item) || !TakesArgMax(*item.sequence)) continue;
    const int64_t row = item.sample_end - 1;
    if (row != end) {
      ArgMaxRun(logits, begin, end, runner, best);
      begin = row;
    }
    end = row + 1;
  }
  ArgMaxRun(logits, begin, end, runner, best);
  for (size_t i = 0; i < flat.items.size(); ++i) {
    const FlatStep::Item& item = flat.items[i];
    if (!TokenDue(item) || !TakesArgMax(*item.sequence)) continue;
    const TokenScore& pick = best[static_cast<size_t>(item.sample_end - 1)];
    if (std::isfinite(pick.logit)) {
      sampled[i].token_id = pick.token_id;
    } else {
      sampled[i].status = Internal("logits: expected a finite largest value, got %f", pick.logit);
    }
  }
}

// Draws from rows as they are go to the runner together; those that it leaves are SampleOne's.
void PickDrawn(const FlatStep& flat, FloatRows logits, StepRunner& runner,
               std::vector<SampledItem>& sampled) {
  std::vector<DrawArgs> draws;
  std::vector<size_t> items;
  for (size_t i = 0; i < flat.items.size(); ++i) {
    const FlatStep::Item& item = flat.items[i];
    if (!TokenDue(item) || !TakesDraw(*item.sequence)) continue;
    draws.push_back(DrawOf(InputOf(*item.sequence, {}), item.sequence->owner->request->sampling));
    draws.back().row = item.sample_end - 1;
    items.push_back(i);
  }
  if (draws.empty()) return;
  std::vector<int32_t> tokens(draws.size(), -1);
  runner.Draw(logits, draws, tokens);
  for (size_t i = 0; i < items.size(); ++i) sampled[items[i]].token_id = tokens[i];
}

}  // namespace

std::vector<SampledItem> SampleStep(const FlatStep& flat, FloatRows logits, StepRunner& runner,
                                    Sampler& sampler) {
  std::vector<SampledItem> sampled(flat.items.size());
  PickGreedy(flat, logits, runner, sampled);
  PickDrawn(flat, logits, runner, sampled);
  for (size_t i = 0; i < flat.items.size(); ++i) {
    SampledItem& out = sampled[i];
    const FlatStep::Item& item = flat.items[i];
    if (item.sequence->embeds()) {
      out.hidden = runner.hidden_states().Slice(item.sample_begin, item.sample_end);
      continue;
    }
    if (out.status.ok()) out.status = ScorePrompt(item, logits, sampler, out);
    if (out.status.ok() && TokenDue(item)) {
      out.status = SampleOne(item, logits, sampler, out);
    }
  }
  return sampled;
}

}  // namespace polyad
