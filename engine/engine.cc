#include "engine/engine.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <future>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "engine/base/worker_pool.h"
#include "engine/constraint/constraint_cache.h"
#include "engine/engine_parts.h"
#include "engine/runtime/engine_core.h"
#include "engine/runtime/intake.h"
#include "engine/runtime/soft_prompt_head.h"
#include "engine/text/detokenizer.h"

namespace polyad {
namespace {

// Rows of logits in a step beyond one for each running sequence: what scoring prompts may use.
constexpr int64_t kScoringRows = 64;

// How long a load waits for its soft prompt's blocks, at a server that is busy with others.
constexpr std::chrono::seconds kHeadWait{10};

// Waits for a request's end.
class FinishSink final : public ResponseSink {
 public:
  bool OnEvent(TokenEvent event) override {
    if (std::holds_alternative<FinishEvent>(event)) finished_.set_value();
    return true;
  }
  void Wait(std::chrono::seconds longest) { finished_.get_future().wait_for(longest); }

 private:
  std::promise<void> finished_;
};

EngineLoop::Options LoopOptions(const EngineOptions& options, const EngineParts& parts) {
  EngineLoop::Options loop;
  loop.limits.scheduler.max_running = options.max_running;
  loop.limits.scheduler.max_step_tokens = options.max_step_tokens;
  loop.limits.scheduler.max_sample_rows = options.max_running + kScoringRows;
  loop.limits.num_blocks = parts.num_kv_blocks;
  loop.limits.kv_layout = parts.kv_layout;
  loop.limits.max_context = parts.info.max_context;
  loop.limits.eos_token_ids = parts.eos_token_ids;
  loop.limits.sliding_window = parts.sliding_window;
  loop.vocab_size = parts.info.vocab_size;
  loop.max_pending_events = options.max_pending_events;
  return loop;
}

Intake::Options IntakeOptions(const EngineOptions& options, const EngineParts& parts) {
  const SchedulerLimits limits = LoopOptions(options, parts).limits.scheduler;
  Intake::Options intake;
  intake.max_whole_tokens = limits.max_whole_tokens();
  intake.max_whole_scored = limits.max_whole_scored();
  intake.model_name = parts.info.name;
  intake.vocab_size = parts.info.vocab_size;
  intake.hidden_size = parts.info.hidden_size;
  intake.max_context = parts.info.max_context;
  intake.num_blocks = parts.max_request_blocks > 0 ? parts.max_request_blocks : parts.num_kv_blocks;
  intake.rope_reaches = parts.rope_reaches;
  intake.max_prompt_bytes = options.max_prompt_bytes;
  intake.base_flops_per_token = 2 * parts.info.num_parameters;
  intake.prefix_cache = options.prefix_cache;
  return intake;
}

class EngineImpl final : public Engine {
 public:
  EngineImpl(const EngineOptions& options, EngineParts parts, Clock& clock,
             EngineObserver* observer)
      : parts_(std::move(parts)),
        clock_(clock),
        max_prompt_bytes_(options.max_prompt_bytes),
        constraints_(*parts_.tokenizer, parts_.info.vocab_size),
        intake_(IntakeOptions(options, parts_),
                {*parts_.tokenizer, clock,
                 [this](std::string_view reference, std::string_view tenant) {
                   return parts_.adapters->Acquire(reference, tenant);
                 },
                 parts_.encode_chat,
                 [this](const std::vector<AdapterUse>& uses, std::string_view tenant) {
                   return parts_.adapters->Compose(uses, tenant);
                 },
                 [this](const ConstraintSpec& spec) { return constraints_.Get(spec); }}),
        core_(LoopOptions(options, parts_), options.max_queued,
              {*parts_.runner, *parts_.tokenizer, clock, observer, parts_.spill.get(),
               parts_.memory.get()}),
        readers_(1, static_cast<size_t>(options.max_queued), options.loader_niceness) {
    if (parts_.memory != nullptr) ShareMemory(options.loader_niceness);
    AdapterStore::Hooks hooks;
    hooks.force = [this](AdapterVersionId version) { core_.Retire(version); };
    hooks.prepare = [this](const AdapterStore::Lease& version) { ComputeHead(version); };
    hooks.ended = [this](const AdapterVersion& version) {
      const auto& reaches =
          version.rope() == nullptr ? parts_.rope_reaches : version.rope()->reaches();
      const auto num_choices = std::max<int64_t>(static_cast<int64_t>(reaches.size()), 1);
      if (version.shares_head()) core_.Forget(HeadKeys(version, num_choices));
    };
    parts_.adapters->SetHooks(std::move(hooks));
  }

  ~EngineImpl() override {
    stopping_ = true;
    if (parts_.memory != nullptr) {
      parts_.memory->SetWake(nullptr);
      parts_.memory->Close();
    }
    parts_.adapters->SetHooks({});
  }

  StatusOr<std::string> Submit(RequestSpec spec, std::shared_ptr<ResponseSink> sink) override {
    POLYAD_ASSIGN_OR_RETURN(const int64_t number, core_.registry().Begin(spec.request_id));
    std::string request_id = spec.request_id;
    std::vector<AdapterStore::Lease> leases;  // so that none is swapped out meanwhile
    if (!TryLease(spec, leases)) {
      POLYAD_RETURN_IF_ERROR(QueueForAdapter(std::move(spec), number, std::move(sink)));
      return request_id;
    }
    POLYAD_RETURN_IF_ERROR(Post(intake_.Prepare(std::move(spec), number, std::move(sink)), number));
    return request_id;
  }

  Status Check(const RequestSpec& spec) override { return intake_.CheckWholly(spec); }

  void Cancel(std::string_view request_id) override { core_.Cancel(request_id); }

  StatusOr<std::vector<int32_t>> Tokenize(std::string_view text, bool add_special) const override {
    if (static_cast<int64_t>(text.size()) > max_prompt_bytes_) {
      return InvalidArgument("text: expected at most %d bytes, got %d", max_prompt_bytes_,
                             text.size());
    }
    return parts_.tokenizer->Encode(text, {.add_special = add_special});
  }

  StatusOr<std::string> Detokenize(const std::vector<int32_t>& ids,
                                   bool skip_special) const override {
    for (const int32_t id : ids) {
      if (id < 0 || id >= parts_.info.vocab_size) {
        return InvalidArgument("token_ids: expected ids in [0, %d), got %d", parts_.info.vocab_size,
                               id);
      }
    }
    return Decode(*parts_.tokenizer, ids, skip_special);
  }

  AdapterStore& adapters() override { return *parts_.adapters; }
  const ModelInfo& model_info() const override { return parts_.info; }
  EngineLoad load() const override { return core_.load(); }
  bool Drain(int64_t wait_ms) override { return core_.registry().Drain(wait_ms); }

 private:
  // On failure the number is ended.
  Status Post(StatusOr<Arrive> arrive, int64_t number) {
    if (arrive.ok()) return core_.Post(*std::move(arrive));
    core_.registry().End(number);
    return arrive.status();
  }

  static size_t NumAdapters(const RequestSpec& spec) {
    return spec.adapters.empty() ? (spec.model.empty() ? 0 : 1) : spec.adapters.size();
  }
  static const std::string& AdapterOf(const RequestSpec& spec, size_t i) {
    return spec.adapters.empty() ? spec.model : spec.adapters[i].name;
  }
  // False where an adapter of it has to be waited for; other errors are the intake's to tell.
  bool TryLease(const RequestSpec& spec, std::vector<AdapterStore::Lease>& leases) const {
    for (size_t i = 0; i < NumAdapters(spec); ++i) {
      StatusOr<AdapterStore::Lease> lease =
          parts_.adapters->AcquireForNew(AdapterOf(spec, i), spec.tenant);
      if (lease.ok()) {
        leases.push_back(*std::move(lease));
      } else if (absl::IsUnavailable(lease.status())) {
        return false;
      }
    }
    return true;
  }

  // K/V asks for pages and is asked for some.
  void ShareMemory(int niceness) {
    parts_.memory->SetWake([this] { core_.ShareMemory(); });
    sharer_ = std::make_unique<WorkerPool>(1, 1, niceness);
    sharer_->TryRun([this] {
      while (const int64_t pages = parts_.memory->WaitForAsk()) {
        parts_.adapters->SwapOutIdle(pages);
        parts_.memory->DoneAsking();
      }
    });
  }

  // Reading starts when the request arrives, long before the scheduler would come to it.
  Status QueueForAdapter(RequestSpec spec, int64_t number, std::shared_ptr<ResponseSink> sink) {
    Status status = intake_.Check(spec);
    const int64_t now_us = clock_.NowMicros();
    if (status.ok() && !readers_.TryRun([this, spec = std::move(spec), number, sink, now_us] {
          SubmitWithAdapter(spec, number, sink, now_us);
        })) {
      status = ResourceExhausted("adapters: too many requests wait for theirs to be read back");
    }
    if (!status.ok()) core_.registry().End(number);
    return status;
  }

  void SubmitWithAdapter(RequestSpec spec, int64_t number, std::shared_ptr<ResponseSink> sink,
                         int64_t arrival_us) {
    const int32_t num_choices = spec.sampling.num_choices;
    std::vector<AdapterStore::Lease> leases;  // until the request has its own
    const Status acquired = AcquireAll(spec, arrival_us, leases);
    spec.adapter_wait_us = clock_.NowMicros() - arrival_us;
    const Status status =
        Post(acquired.ok() ? intake_.Prepare(std::move(spec), number, sink) : acquired, number);
    if (status.ok()) return;
    for (int32_t choice = 0; choice < num_choices; ++choice) {
      FinishEvent finish;
      finish.choice = choice;
      finish.reason = FinishReason::kError;
      finish.status = status;
      sink->OnEvent(std::move(finish));
    }
  }

  Status AcquireAll(const RequestSpec& spec, int64_t arrival_us,
                    std::vector<AdapterStore::Lease>& leases) {
    const int64_t wait_ms =
        spec.max_adapter_wait_ms > 0 ? spec.max_adapter_wait_ms : kDefaultAdapterWaitMs;
    int64_t until_us = arrival_us + wait_ms * 1000;
    if (spec.deadline_us > 0) until_us = std::min(until_us, spec.deadline_us);
    for (size_t i = 0; i < NumAdapters(spec); ++i) {
      const int64_t left_ms = (until_us - clock_.NowMicros()) / 1000;
      StatusOr<AdapterStore::Lease> lease = parts_.adapters->AcquireWaiting(
          AdapterOf(spec, i), spec.tenant, std::max<int64_t>(left_ms, 0),
          [this] { return stopping_.load(); });
      if (!lease.ok()) return lease.status();
      leases.push_back(*std::move(lease));
    }
    return absl::OkStatus();
  }

  // Computes the blocks of an adapter's soft prompt. Where that cannot be had (the server drains,
  // the queue is full), the version's first request does it.
  void ComputeHead(const AdapterStore::Lease& version) {
    if (!version->shares_head()) return;
    std::string request_id;
    const StatusOr<int64_t> number = core_.registry().Begin(request_id);
    if (!number.ok()) return;
    const auto sink = std::make_shared<FinishSink>();
    if (Post(intake_.PrepareHead(version, *number, sink), *number).ok()) sink->Wait(kHeadWait);
  }

  EngineParts parts_;
  Clock& clock_;
  const int64_t max_prompt_bytes_;
  ConstraintCache constraints_;
  const Intake intake_;
  EngineCore core_;  // its threads stop before anything they use goes
  std::atomic<bool> stopping_{false};
  WorkerPool readers_;                  // one thread: whoever came first has its adapter first
  std::unique_ptr<WorkerPool> sharer_;  // one thread, in ShareMemory; null: nothing is shared
};

}  // namespace

StatusOr<std::unique_ptr<Engine>> MakeEngine(const EngineOptions& options, EngineParts parts,
                                             Clock& clock, EngineObserver* observer) {
  if (options.max_running < 1 || options.max_step_tokens < options.max_running) {
    return InvalidArgument(
        "max_step_tokens: expected at least max_running (%d, at least 1), got %d",
        options.max_running, options.max_step_tokens);
  }
  if (options.max_queued < 1 || options.max_pending_events < 1) {
    return InvalidArgument("max_queued and max_pending_events: expected at least 1, got %d and %d",
                           options.max_queued, options.max_pending_events);
  }
  return std::unique_ptr<Engine>(new EngineImpl(options, std::move(parts), clock, observer));
}

}  // namespace polyad
