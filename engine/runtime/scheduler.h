#pragma once

// What runs next: a pure function from a view of the engine (plain numbers) to a StepPlan, so that
// every rule can be tested without an engine. The order of business: end what is past its deadline;
// give every running sequence the block its next token needs, preempting where there is none
// (capacity first); then share the step's token budget: decodes, then prefill chunks of running
// sequences and new admissions in one order. Nothing here knows "prefill" as a mode: a sequence
// has tokens, some of them computed, and runs the next few.
//
// Fairness is between tenants: among equal priorities the tenant that was served least goes first,
// where service is tokens weighed by their cost with the adapter, over the tenant's weight (virtual
// token counters: Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024). A prefill
// at the head of the order that does not fit waits, and nobody overtakes it; a tenant that has all
// that its share allows waits for itself alone. Where places or blocks are taken, whoever goes
// first gets some of those who hold more for their weight (MakePlace, MakeRoom in scheduler.cc).

#include <cstdint>
#include <vector>

#include "engine/base/strong_id.h"
#include "engine/cache/block_pool.h"
#include "engine/request/tenant_share.h"

namespace polyad {

// Cost of one token through the base model; adapters add their share of the arithmetic.
inline constexpr int64_t kBaseTokenCost = 1024;

struct SchedulerLimits {
  int64_t max_running = 64;
  int64_t max_step_tokens = 512;  // at least max_running, so that every decode fits
  int64_t max_sample_rows = 128;  // rows of logits in one step; more than max_running
  // Blocks copied back in one step, while which nobody's next token is computed.
  int64_t max_restored_blocks = 256;

  // What one step always has room for beside the others' decodes: the most tokens that may have to
  // run together, and of them the most whose logits are wanted.
  int64_t max_whole_tokens() const { return max_step_tokens - max_running + 1; }
  int64_t max_whole_scored() const { return max_sample_rows - max_running; }
};

struct SequenceView {
  SequenceId id;                 // older requests have smaller ids
  int64_t tenant = 0;            // index into SchedulerView::tenants
  int32_t priority = 0;          // larger first
  int64_t deadline_us = 0;       // 0: none
  int64_t num_tokens = 0;        // known so far
  int64_t num_computed = 0;      // of them in the cache
  int64_t num_caches = 1;        // whose blocks each token needs
  int64_t num_blocks = 0;        // places of its tables, of all its caches, those given back too
  int64_t returned_blocks = 0;   // of those places, behind a sliding window
  int64_t exclusive_blocks = 0;  // blocks that it holds and nobody else does
  int64_t first_logits =
      0;  // first position whose logits are wanted; num_tokens - 1 but where the prompt is scored
  // Tokens before it run in one step, each later one in a step of its own; 0: in any pieces.
  int64_t whole_until = 0;
  // At most so many tokens of it in a step in which other sequences generate; 0: any number.
  int64_t max_beside_decodes = 0;
  int64_t token_cost = kBaseTokenCost;
  // Waiting sequences only: the cached prefix that admission would take.
  int64_t cached_blocks = 0;
  int64_t unheld_cached_blocks = 0;  // of them held by nobody: taking them uses up available blocks
  int64_t spilled_blocks = 0;        // after them: copied back into new blocks, not computed

  int64_t blocks_for_all() const { return num_caches * BlocksFor(num_tokens); }
  int64_t blocks_held() const { return blocks_for_all() - returned_blocks; }  // once it runs
};

struct TenantView {
  int64_t served = 0;  // TenantLedger::Account
  TenantShare share;
};

struct SchedulerView {
  int64_t now_us = 0;
  SchedulerLimits limits;
  int64_t num_blocks = 0;
  int64_t available_blocks = 0;
  std::vector<SequenceView> running;
  std::vector<SequenceView> waiting;
  std::vector<TenantView> tenants;
};

struct StepPlan {
  struct Work {  // tokens [first, first + count) of a sequence
    SequenceId id;
    int64_t first = 0;
    int64_t count = 0;
  };
  struct Admission {
    SequenceId id;
    int64_t cached_blocks = 0;
    int64_t spilled_blocks = 0;
  };
  // In the order they are to be applied.
  std::vector<SequenceId> expirations;
  std::vector<SequenceId> preemptions;  // give up all blocks and wait again
  std::vector<Admission> admissions;    // take the cached prefix and blocks for all known tokens
  std::vector<Work> work;               // every sequence in it is running once admissions are done

  int64_t num_rows() const {
    int64_t rows = 0;
    for (const Work& item : work) rows += item.count;
    return rows;
  }
};

StepPlan Plan(const SchedulerView& view);

}  // namespace polyad
