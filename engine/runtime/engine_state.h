#pragma once

// All that the engine thread may change: the requests, their sequences, the blocks, the tenants'
// counters, and what has happened in this step (outputs). Step's four parts work on it in turn;
// every way a request can end goes through FinishChoice or FinishRequest here, so blocks are freed
// and the one finish event is written in one place.

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/base/memory_ledger.h"
#include "engine/base/status.h"
#include "engine/cache/block_pool.h"
#include "engine/cache/spill_store.h"
#include "engine/cache/swap_cost.h"
#include "engine/runtime/engine_load.h"
#include "engine/runtime/messages.h"
#include "engine/runtime/scheduler.h"
#include "engine/runtime/sequence.h"
#include "engine/runtime/tenant_ledger.h"

namespace polyad {

struct EngineLimits {
  SchedulerLimits scheduler;
  int64_t num_blocks = 0;
  BlockPages::Layout kv_layout;  // where K/V shares memory with adapters
  int64_t max_context = 0;       // tokens of prompt and output, virtual ones too
  std::vector<int32_t> eos_token_ids;
  int64_t sliding_window = 0;  // the largest of all layers; 0: some layer sees every token
};

class EngineState {
 public:
  // `spill` and `memory` may be null and outlive the state.
  explicit EngineState(EngineLimits limits, SpillStore* spill = nullptr,
                       MemoryLedger* memory = nullptr);

  void AddRequest(Arrive arrive, int64_t now_us);
  // The choices beyond the first, as waiting sequences that find the prompt in the cache.
  void AddOtherChoices(const Sequence& first);

  // Ends a choice: frees its blocks, writes its event. Forgets the request with its last choice.
  void FinishChoice(Sequence& sequence, FinishEvent event, int64_t now_us);
  void FinishRequest(int64_t number, FinishReason reason, const Status& status, int64_t now_us);

  void Preempt(Sequence& sequence);
  void Emit(const ActiveRequest& owner, const Sequence* sequence, TokenEvent event, int64_t now_us);

  SchedulerView View(int64_t now_us) const;
  // Requests of an adapter version, by number.
  std::vector<int64_t> RequestsOf(AdapterVersionId version) const;
  EngineLoad Snapshot() const;
  void CheckInvariants() const;

  Sequence* Find(SequenceId id);
  ActiveRequest* FindRequest(int64_t number);
  bool idle() const { return sequences_.empty(); }
  const std::map<SequenceId, std::unique_ptr<Sequence>>& sequences() const { return sequences_; }
  const std::map<int64_t, std::unique_ptr<ActiveRequest>>& requests() const { return requests_; }

  const EngineLimits limits;
  BlockPool pool;
  SpillStore* const spill;      // null: what is evicted is computed again
  MemoryLedger* const memory;   // shared with adapters; null: K/V has memory of its own
  int64_t memory_shown_us = 0;  // share_memory.cc
  SwapCost swap_cost;
  struct Restore {  // content that a block of this step's admissions is to have
    SequenceId sequence;
    PrefixKey key;
    BlockId block;
  };
  std::vector<Restore> restores;
  EngineLoad counters;                // the running totals of Snapshot
  std::vector<EngineOutput> outputs;  // of this step, in order
  std::vector<int64_t> left_queue;    // numbers first admitted in this step

 private:
  void MarkFinished(Sequence& sequence, FinishReason reason);
  void EraseSequence(Sequence& sequence);
  void EraseRequestIfDone(ActiveRequest& owner, FinishReason reason);
  SequenceView ViewOf(const Sequence& sequence, bool look_up) const;
  Timings TimingsOf(const ActiveRequest& owner, const Sequence* sequence, int64_t now_us) const;

  TenantLedger ledger_;
  std::map<int64_t, std::unique_ptr<ActiveRequest>> requests_;  // by number
  std::map<SequenceId, std::unique_ptr<Sequence>> sequences_;   // by age
};

}  // namespace polyad
