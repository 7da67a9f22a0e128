#include "engine/runtime/engine_state.h"

#include <algorithm>
#include <set>

#include "engine/adapters/adapter_version.h"
#include "engine/base/check.h"
#include "engine/base/status.h"
#include "engine/runtime/soft_prompt_head.h"

namespace polyad {
namespace {

double Millis(int64_t begin_us, int64_t end_us) {
  return begin_us > 0 && end_us > begin_us ? static_cast<double>(end_us - begin_us) / 1000.0 : 0.0;
}

}  // namespace

EngineState::EngineState(EngineLimits given, SpillStore* spill_store, MemoryLedger* ledger)
    : limits(std::move(given)),
      pool(limits.num_blocks, limits.kv_layout),
      spill(spill_store),
      memory(ledger) {}

void EngineState::AddRequest(Arrive arrive, int64_t now_us) {
  auto owner = std::make_unique<ActiveRequest>();
  owner->number = arrive.number;
  owner->request = std::move(arrive.request);
  owner->token_cost = arrive.token_cost;
  owner->account = ledger_.Enter(owner->request->tenant, owner->request->share);
  const Request& request = *owner->request;
  if (request.adapter != nullptr) {
    owner->num_virtual = request.adapter->num_virtual_tokens();
    owner->num_padding = request.adapter->num_padding();
  }
  owner->choice_finished.resize(static_cast<size_t>(request.sampling.num_choices), false);
  owner->stop_ids = request.stopping.stop_token_ids;
  if (!request.stopping.ignore_eos) {
    owner->stop_ids.insert(owner->stop_ids.end(), limits.eos_token_ids.begin(),
                           limits.eos_token_ids.end());
  }
  std::sort(owner->stop_ids.begin(), owner->stop_ids.end());

  auto sequence = std::make_unique<Sequence>();
  sequence->id = IdOf(owner->number, 0);
  sequence->owner = owner.get();
  sequence->tokens = SequenceTokens(request);
  sequence->keys = std::move(arrive.prompt_keys);
  sequences_.emplace(sequence->id, std::move(sequence));
  const int64_t number = owner->number;
  requests_.emplace(number, std::move(owner));
  const int64_t deadline_us = request.deadline_us;
  if (deadline_us > 0 && now_us >= deadline_us) {
    FinishRequest(number, FinishReason::kError, DeadlineExceeded("the deadline passed on arrival"),
                  now_us);
  }
}

void EngineState::AddOtherChoices(const Sequence& first) {
  ActiveRequest& owner = *first.owner;
  for (int32_t choice = 1; choice < owner.request->sampling.num_choices; ++choice) {
    auto sequence = std::make_unique<Sequence>();
    sequence->id = IdOf(owner.number, choice);
    sequence->owner = &owner;
    sequence->choice = choice;
    sequence->tokens = SequenceTokens(*owner.request);
    sequence->keys = first.keys;
    sequences_.emplace(sequence->id, std::move(sequence));
  }
}

Sequence* EngineState::Find(SequenceId id) {
  const auto found = sequences_.find(id);
  return found == sequences_.end() ? nullptr : found->second.get();
}

ActiveRequest* EngineState::FindRequest(int64_t number) {
  const auto found = requests_.find(number);
  return found == requests_.end() ? nullptr : found->second.get();
}

Timings EngineState::TimingsOf(const ActiveRequest& owner, const Sequence* sequence,
                               int64_t now_us) const {
  Timings timings;
  const int64_t admitted_us = owner.admitted_us > 0 ? owner.admitted_us : now_us;
  timings.adapter_wait_ms = static_cast<double>(owner.request->adapter_wait_us) / 1000.0;
  timings.queue_ms =
      Millis(owner.request->arrival_us + owner.request->adapter_wait_us, admitted_us);
  const int64_t first_us =
      sequence != nullptr && sequence->first_token_us > 0 ? sequence->first_token_us : now_us;
  timings.prefill_ms = Millis(admitted_us, first_us);
  timings.decode_ms = Millis(first_us, now_us);
  return timings;
}

void EngineState::Emit(const ActiveRequest& owner, const Sequence* sequence, TokenEvent event,
                       int64_t now_us) {
  EngineOutput output;
  output.number = owner.number;
  output.request = owner.request;
  output.timings = TimingsOf(owner, sequence, now_us);
  output.cached_tokens = owner.cached_tokens;
  output.event = std::move(event);
  if (auto* finish = std::get_if<FinishEvent>(&output.event)) {
    finish->timings = output.timings;
    finish->usage.prompt_tokens = static_cast<int64_t>(owner.request->prompt_tokens.size());
    finish->usage.cached_tokens = owner.cached_tokens;
    finish->usage.completion_tokens = sequence != nullptr ? sequence->num_output() : 0;
  }
  outputs.push_back(std::move(output));
}

void EngineState::FinishChoice(Sequence& sequence, FinishEvent event, int64_t now_us) {
  const FinishReason reason = event.reason;
  event.choice = sequence.choice;
  Emit(*sequence.owner, &sequence, std::move(event), now_us);
  MarkFinished(sequence, reason);
}

void EngineState::MarkFinished(Sequence& sequence, FinishReason reason) {
  ActiveRequest& owner = *sequence.owner;
  owner.choice_finished[static_cast<size_t>(sequence.choice)] = true;
  EraseSequence(sequence);
  EraseRequestIfDone(owner, reason);
}

void EngineState::FinishRequest(int64_t number, FinishReason reason, const Status& status,
                                int64_t now_us) {
  ActiveRequest* owner = FindRequest(number);
  if (owner == nullptr) return;
  for (int32_t choice = 0; choice < owner->request->sampling.num_choices; ++choice) {
    if (owner->choice_finished[static_cast<size_t>(choice)]) continue;
    owner->choice_finished[static_cast<size_t>(choice)] = true;
    Sequence* sequence = Find(IdOf(number, choice));
    FinishEvent event;
    event.choice = choice;
    event.reason = reason;
    event.status = status;
    Emit(*owner, sequence, std::move(event), now_us);
    if (sequence != nullptr) EraseSequence(*sequence);
  }
  EraseRequestIfDone(*owner, reason);
}

void EngineState::EraseSequence(Sequence& sequence) {
  pool.ReleaseAll(sequence.blocks);
  sequences_.erase(sequence.id);
}

void EngineState::EraseRequestIfDone(ActiveRequest& owner, FinishReason reason) {
  if (!std::all_of(owner.choice_finished.begin(), owner.choice_finished.end(),
                   [](bool done) { return done; })) {
    return;
  }
  if (!owner.request->is_head_request) {
    ++(reason == FinishReason::kCancelled ? counters.num_requests_cancelled
                                          : counters.num_requests_finished);
  }
  ledger_.Leave(owner.request->tenant);
  requests_.erase(owner.number);
}

void EngineState::Preempt(Sequence& sequence) {
  pool.ReleaseAll(sequence.blocks);
  sequence.running = false;
  sequence.num_computed = 0;
  sequence.num_published = 0;
  sequence.num_behind = 0;
  ++counters.num_preemptions;
}

SequenceView EngineState::ViewOf(const Sequence& sequence, bool look_up) const {
  SequenceView view;
  view.id = sequence.id;
  view.tenant = sequence.owner->account->view_index;
  view.priority = sequence.owner->request->priority;
  view.deadline_us = sequence.owner->request->deadline_us;
  view.num_tokens = sequence.num_tokens();
  view.num_computed = sequence.num_computed;
  view.num_caches = sequence.num_caches();
  view.num_blocks = static_cast<int64_t>(sequence.blocks.size());
  view.returned_blocks = sequence.num_behind * sequence.num_caches();
  view.exclusive_blocks = sequence.running ? pool.NumExclusive(sequence.blocks) : 0;
  view.first_logits = sequence.first_logits();
  const AdapterVersion* adapter = sequence.owner->request->adapter.get();
  if (adapter != nullptr && adapter->reads_whole_prompt()) view.whole_until = sequence.prompt_end();
  if (sequence.owner->request->is_head_request) view.max_beside_decodes = kHeadTokensBesideDecodes;
  view.token_cost = sequence.owner->token_cost;
  if (look_up && !sequence.keys.empty()) {
    const BlockPool::Match match =
        pool.FindPrefix(sequence.keys.keys, sequence.max_cached_blocks());
    view.cached_blocks = match.num_blocks;
    view.unheld_cached_blocks = match.from_cache;
    if (spill != nullptr && swap_cost.RestorePays()) {
      view.spilled_blocks = spill->FindPrefix(sequence.keys.keys, match.num_blocks + 1,
                                              sequence.max_cached_blocks() + 1);
    }
  }
  return view;
}

SchedulerView EngineState::View(int64_t now_us) const {
  SchedulerView view;
  view.now_us = now_us;
  view.limits = limits.scheduler;
  view.num_blocks = pool.num_blocks();
  view.available_blocks = pool.num_available();
  for (const auto& [number, owner] : requests_) owner->account->view_index = -1;
  int64_t num_running = 0;
  for (const auto& [id, sequence] : sequences_) {
    TenantLedger::Account& account = *sequence->owner->account;
    if (account.view_index < 0) {
      account.view_index = static_cast<int64_t>(view.tenants.size());
      view.tenants.push_back({account.served, account.share});
    }
    if (sequence->running) ++num_running;
  }
  const bool may_admit = num_running < limits.scheduler.max_running;
  for (const auto& [id, sequence] : sequences_) {
    auto& list = sequence->running ? view.running : view.waiting;
    list.push_back(ViewOf(*sequence, !sequence->running && may_admit));
  }
  return view;
}

std::vector<int64_t> EngineState::RequestsOf(AdapterVersionId version) const {
  std::vector<int64_t> numbers;
  for (const auto& [number, owner] : requests_) {
    const auto& adapter = owner->request->adapter;
    if (adapter != nullptr && adapter->Uses(version)) numbers.push_back(number);
  }
  return numbers;
}

EngineLoad EngineState::Snapshot() const {
  EngineLoad load = counters;
  std::set<std::string> running;
  std::set<std::string> waiting;
  for (const auto& [id, sequence] : sequences_) {
    ++(sequence->running ? load.num_running : load.num_waiting);
    if (sequence->owner->request->adapter == nullptr) continue;
    (sequence->running ? running : waiting).insert(sequence->owner->request->adapter_identity.name);
  }
  load.running_adapters.assign(running.begin(), running.end());
  load.waiting_adapters.assign(waiting.begin(), waiting.end());
  load.num_kv_blocks = pool.num_blocks();
  load.num_kv_blocks_used = pool.num_held();
  load.num_kv_blocks_cached = pool.num_cached();
  if (spill != nullptr) {
    load.num_kv_blocks_in_memory = spill->num_in_memory();
    load.num_kv_blocks_in_file = spill->num_in_file();
  }
  load.num_kv_blocks_shared = pool.num_shared();
  load.num_kv_blocks_soft_prompt = pool.num_soft_prompt();
  if (memory != nullptr) {
    const MemoryLedger::Counts pages = memory->counts();
    load.memory_bytes.total = pages.total * MemoryLedger::kPageBytes;
    load.memory_bytes.prefix = pool.num_cached() * limits.kv_layout.block_stride;
    load.memory_bytes.kv = pages.kv * MemoryLedger::kPageBytes - load.memory_bytes.prefix;
    load.memory_bytes.adapters = pages.adapters * MemoryLedger::kPageBytes;
    load.memory_bytes.free = pages.free * MemoryLedger::kPageBytes;
  }
  return load;
}

void EngineState::CheckInvariants() const {
  std::vector<const BlockTable*> tables;
  for (const auto& [id, sequence] : sequences_) {
    tables.push_back(&sequence->blocks);
    POLYAD_CHECK(sequence->running || sequence->blocks.empty(), "only the running hold blocks");
    POLYAD_CHECK(sequence->num_computed < sequence->num_tokens(), "one token is always to be run");
    POLYAD_CHECK(sequence->num_caches() * BlocksFor(sequence->num_computed) <=
                     static_cast<int64_t>(sequence->blocks.size()),
                 "computed tokens lie in blocks");
    for (size_t i = 0; i < sequence->blocks.size(); ++i) {
      const auto index = static_cast<int64_t>(i) / sequence->num_caches();
      POLYAD_CHECK(sequence->blocks[i].valid() == (index >= sequence->num_behind),
                   "only blocks behind the window are given back");
    }
    POLYAD_CHECK(sequence->num_caches() == 1 || sequence->keys.empty(),
                 "a sequence with two caches shares nothing");
    POLYAD_CHECK(requests_.count(sequence->owner->number) == 1, "a sequence's request is known");
  }
  pool.CheckInvariants(tables);
  if (spill != nullptr) spill->CheckInvariants();
  if (memory != nullptr) {
    memory->CheckInvariants();
    POLYAD_CHECK(memory->counts().kv * MemoryLedger::kPageBytes ==
                     pool.pages().num_present() * limits.kv_layout.page_bytes,
                 "the ledger knows K/V's pages");
  }
  std::map<std::string, int64_t> num_alive;
  for (const auto& [number, owner] : requests_) ++num_alive[owner->request->tenant];
  ledger_.CheckInvariants(num_alive);
}

}  // namespace polyad
