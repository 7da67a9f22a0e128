#include "engine/runtime/commit.h"

#include <algorithm>
#include <utility>

#include "engine/base/check.h"

namespace polyad {
namespace {

void Publish(Sequence& sequence, EngineState& state) {
  if (sequence.keys.empty()) return;
  ExtendKeys(std::span(sequence.tokens).first(static_cast<size_t>(sequence.num_computed)),
             sequence.keys);
  const int64_t num_full = sequence.num_computed / kBlockTokens;
  for (int64_t block = sequence.num_published; block < num_full; ++block) {
    state.pool.Publish(sequence.keys.keys[static_cast<size_t>(block + 1)],
                       sequence.keys.OwnerOfBlock(block),
                       sequence.blocks[static_cast<size_t>(block)]);
  }
  sequence.num_published = std::max(sequence.num_published, num_full);
}

// Gives back what no later row sees: the next one, at num_computed, sees keys from num_computed -
// window + 1 on. Published blocks stay findable until they are evicted. Gates write a prefix's
// blocks anew in every step, so there they stay.
void GiveBackBehindWindow(Sequence& sequence, EngineState& state) {
  const int64_t window = state.limits.sliding_window;
  const AdapterVersion* adapter = sequence.owner->request->adapter.get();
  const SoftPrompt* prompt = adapter == nullptr ? nullptr : adapter->soft_prompt();
  if (window == 0 || (prompt != nullptr && !prompt->gates.empty())) return;
  const int64_t behind = std::max<int64_t>(sequence.num_computed - window + 1, 0) / kBlockTokens;
  if (behind <= sequence.num_behind) return;
  const int64_t num_caches = sequence.num_caches();
  state.pool.ReleaseRange(sequence.num_behind * num_caches, behind * num_caches, sequence.blocks);
  sequence.num_behind = behind;
}

// The first choice has its whole prompt in the cache: tell the client, and let the other choices
// begin.
Status CompletePrompt(Sequence& sequence, EngineState& state, int64_t now_us) {
  ActiveRequest& owner = *sequence.owner;
  PromptEvent event;
  if (sequence.embeds()) {
    POLYAD_ASSIGN_OR_RETURN(event.embedding, owner.pooled.Finish(*owner.request->embedding));
  }
  owner.prompt_done = true;
  if (!owner.request->is_head_request) state.counters.prompt_tokens += sequence.num_prompt();
  event.num_prompt_tokens = sequence.num_prompt();
  event.num_cached_tokens = owner.cached_tokens;
  event.token_logprobs = std::move(owner.prompt_logprobs);
  event.adapter = owner.request->adapter_identity;
  state.Emit(owner, &sequence, std::move(event), now_us);
  state.AddOtherChoices(sequence);
  return absl::OkStatus();
}

bool IsStopToken(const Sequence& sequence) {
  const std::vector<int32_t>& stop_ids = sequence.owner->stop_ids;
  return sequence.num_output() > sequence.owner->request->stopping.min_tokens &&
         std::binary_search(stop_ids.begin(), stop_ids.end(), sequence.tokens.back());
}

// Nothing can follow what the constraint was given.
bool IsComplete(const Sequence& sequence) {
  const auto& constraint = sequence.owner->request->constraint;
  return constraint != nullptr && constraint->IsFinal(sequence.constrained);
}

// Whether the newest token ends the sequence, and how.
bool Ends(const Sequence& sequence, const EngineLimits& limits, FinishEvent& event) {
  const ActiveRequest& owner = *sequence.owner;
  const StoppingParams& stopping = owner.request->stopping;
  const int32_t token = sequence.tokens.back();
  if (IsStopToken(sequence)) {
    event.reason = FinishReason::kStop;
    const auto& asked = stopping.stop_token_ids;
    const bool by_request = std::find(asked.begin(), asked.end(), token) != asked.end();
    if (by_request) event.stop_reason = std::to_string(token);
    return true;
  }
  if (IsComplete(sequence)) {
    event.reason = FinishReason::kStop;
    return true;
  }
  event.reason = FinishReason::kLength;
  return sequence.num_output() >= stopping.max_tokens ||
         sequence.num_positions() >= owner.max_context(limits.max_context);
}

void AppendToken(Sequence& sequence, SampledItem sampled, EngineState& state,
                 EngineObserver* observer, int64_t now_us) {
  if (sequence.first_token_us == 0) {
    sequence.first_token_us = now_us;
  } else if (observer != nullptr) {
    observer->OnTokenGap(static_cast<double>(now_us - sequence.last_token_us) / 1000.0);
  }
  sequence.last_token_us = now_us;
  sequence.tokens.push_back(sampled.token_id);
  const auto& constraint = sequence.owner->request->constraint;
  if (constraint != nullptr && !IsStopToken(sequence)) {
    constraint->Advance(sequence.output(), sequence.constrained);
  }
  ++state.counters.generated_tokens;
  TokensEvent event;
  event.choice = sequence.choice;
  event.token_ids = {sampled.token_id};
  event.token_logprobs = std::move(sampled.token_logprobs);
  state.Emit(*sequence.owner, &sequence, std::move(event), now_us);
  FinishEvent finish;
  if (!Ends(sequence, state.limits, finish)) return;
  state.outputs.back().ends_with_stop_token = IsStopToken(sequence);
  state.FinishChoice(sequence, std::move(finish), now_us);
}

void CommitOne(const FlatStep::Item& item, SampledItem sampled, EngineState& state,
               EngineObserver* observer, int64_t now_us) {
  Sequence& sequence = *item.sequence;
  ActiveRequest& owner = *sequence.owner;
  TenantLedger::Account& account = *owner.account;
  account.served += account.share.ChargeOf(item.work.count * owner.token_cost);
  if (!sampled.status.ok()) {
    state.FinishRequest(owner.number, FinishReason::kError, sampled.status, now_us);
    return;
  }
  state.counters.soft_prompt_tokens +=
      std::clamp<int64_t>(owner.num_virtual - sequence.num_computed, 0, item.work.count);
  sequence.num_computed += item.work.count;
  Publish(sequence, state);
  GiveBackBehindWindow(sequence, state);
  for (TokenLogprob& scored : sampled.prompt_logprobs)
    owner.prompt_logprobs.push_back(std::move(scored));
  owner.pooled.Add(sampled.hidden);
  if (!owner.prompt_done && sequence.num_computed >= sequence.prompt_end()) {
    const Status status = CompletePrompt(sequence, state, now_us);
    if (!status.ok()) {
      state.FinishRequest(owner.number, FinishReason::kError, status, now_us);
      return;
    }
  }
  if (sampled.token_id >= 0) {
    AppendToken(sequence, std::move(sampled), state, observer, now_us);
  } else if (sequence.num_computed == sequence.num_tokens()) {  // max_tokens 0: scored and done
    FinishEvent finish;
    finish.reason = FinishReason::kLength;
    state.FinishChoice(sequence, std::move(finish), now_us);
  }
}

void AdmitOne(const StepPlan::Admission& admission, EngineState& state, int64_t now_us) {
  Sequence& sequence = *state.Find(admission.id);
  ActiveRequest& owner = *sequence.owner;
  if (admission.cached_blocks > 0) {
    state.pool.TakePrefix(sequence.keys.keys, admission.cached_blocks, sequence.blocks);
  }
  sequence.running = true;
  sequence.num_computed = (admission.cached_blocks + admission.spilled_blocks) * kBlockTokens;
  sequence.num_published = admission.cached_blocks;
  if (owner.admitted_us > 0) return;
  owner.admitted_us = now_us;
  owner.cached_tokens = std::max<int64_t>(0, sequence.num_computed - owner.num_virtual);
  state.left_queue.push_back(owner.number);
  if (sequence.keys.empty() || owner.request->is_head_request) return;
  state.counters.prefix_queries += sequence.num_prompt();
  state.counters.prefix_hits += owner.cached_tokens;
}

// The new blocks of an admission that get their content back.
void ListRestores(const StepPlan::Admission& admission, EngineState& state) {
  const Sequence& sequence = *state.Find(admission.id);
  for (int64_t i = 0; i < admission.spilled_blocks; ++i) {
    const auto block = static_cast<size_t>(admission.cached_blocks + i);
    const PrefixKey& key = sequence.keys.keys[block + 1];
    state.spill->Keep(key);
    state.restores.push_back({admission.id, key, sequence.blocks[block]});
  }
}

}  // namespace

void ApplyPlan(const StepPlan& plan, EngineState& state, int64_t now_us) {
  for (const SequenceId id : plan.expirations) {
    state.FinishRequest(NumberOf(id), FinishReason::kError,
                        DeadlineExceeded("the request's deadline passed"), now_us);
  }
  for (const SequenceId id : plan.preemptions) {
    if (Sequence* sequence = state.Find(id); sequence != nullptr) state.Preempt(*sequence);
  }
  // Cached prefixes are taken before anybody is given a new block, which might evict them.
  for (const StepPlan::Admission& admission : plan.admissions) AdmitOne(admission, state, now_us);
  for (const StepPlan::Work& work : plan.work) {
    Sequence& sequence = *state.Find(work.id);
    const int64_t missing =
        sequence.blocks_for_all() - static_cast<int64_t>(sequence.blocks.size());
    if (missing > 0) state.pool.Allocate(missing, sequence.blocks);
  }
  for (const StepPlan::Admission& admission : plan.admissions) ListRestores(admission, state);
}

void Commit(const FlatStep& flat, std::vector<SampledItem> sampled, EngineState& state,
            EngineObserver* observer, int64_t now_us) {
  ++state.counters.num_steps;
  state.counters.step_rows = flat.batch.num_rows();
  for (size_t i = 0; i < flat.items.size(); ++i) {
    // A request that failed earlier in this loop took its other choices with it.
    if (state.Find(flat.items[i].work.id) == nullptr) continue;
    CommitOne(flat.items[i], std::move(sampled[i]), state, observer, now_us);
  }
}

void FailStep(const StepPlan& plan, const Status& status, EngineState& state, int64_t now_us) {
  for (const StepPlan::Work& work : plan.work) {
    state.FinishRequest(NumberOf(work.id), FinishReason::kError, status, now_us);
  }
}

}  // namespace polyad
