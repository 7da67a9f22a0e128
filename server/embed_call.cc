#include "server/embed_call.h"

#include <algorithm>
#include <utility>

#include "server/quota_error.h"

namespace polyad {

// One input's events.
class EmbedCall::Sink final : public ResponseSink {
 public:
  Sink(std::shared_ptr<EmbedCall> call, size_t index, std::string id)
      : call_(std::move(call)), index_(index), id_(std::move(id)) {}

  bool OnEvent(TokenEvent event) override {
    if (auto* prompt = std::get_if<PromptEvent>(&event)) {
      call_->OnPrompt(index_, std::move(*prompt));
    } else if (const auto* finish = std::get_if<FinishEvent>(&event)) {
      call_->OnFinish(id_, *finish);
    }
    return true;
  }

 private:
  const std::shared_ptr<EmbedCall> call_;
  const size_t index_;
  const std::string id_;
};

EmbedCall::EmbedCall(Serving& serving, std::vector<RequestSpec> specs)
    : engine_(serving.engine),
      gate_(serving.gate),
      workers_(serving.embedders),
      specs_(std::move(specs)),
      tenant_(specs_.front().tenant),
      client_id_(specs_.front().request_id),
      metrics_(serving.metrics),
      traces_(serving.traces) {
  ended_.request_id = UniqueRequestId(client_id_);
  ended_.tenant = tenant_;
  ended_.trace = specs_.front().trace;
  ended_.begin_unix_us = UnixMicros();
  for (size_t i = specs_.size(); i > 0; --i) waiting_.push_back(i - 1);
  result_.embeddings.resize(specs_.size());
  result_.num_tokens.resize(specs_.size());
}

void EmbedCall::Run(Serving& serving, Done done) {
  auto pass = EnterGate(serving, specs_);
  if (!pass.ok()) {
    done(CountRefusal(metrics_, tenant_, pass.status()));
    return;
  }
  {
    std::lock_guard<std::mutex> lock(mutex_);
    pass_ = *std::move(pass);
    done_ = std::move(done);
  }
  SubmitMore();
}

// Whether there is an input that may go now.
bool EmbedCall::TakeNext(size_t& index, std::string& id) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!failure_.ok() || waiting_.empty()) return false;
  if (static_cast<int64_t>(running_.size()) >= kEmbedWindow) return false;
  index = waiting_.back();
  waiting_.pop_back();
  id = UniqueRequestId(client_id_);
  running_.insert(id);
  return true;
}

void EmbedCall::SubmitMore() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    more_is_queued_ = false;
  }
  size_t index = 0;
  std::string id;
  while (TakeNext(index, id) && SubmitOne(index, id)) {
  }
  EndIfOver();
}

// False where no other may follow now: the engine's queue is full, and the call's own inputs are in
// it.
bool EmbedCall::SubmitOne(size_t index, const std::string& id) {
  RequestSpec spec = specs_[index];
  spec.request_id = id;
  const Status status =
      engine_.Submit(std::move(spec), std::make_shared<Sink>(shared_from_this(), index, id))
          .status();
  bool is_late = false;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (status.ok()) {
      is_late = !failure_.ok();  // whoever failed may not have known of it
      specs_[index].prompt = TextPrompt{};
    } else {
      running_.erase(id);
      if (absl::IsResourceExhausted(status) && !running_.empty()) {
        waiting_.push_back(index);
        return false;
      }
      FailLocked(WithRetry(status, gate_.RetryMillisOf(tenant_)));
    }
  }
  if (is_late) engine_.Cancel(id);
  return true;
}

void EmbedCall::OnPrompt(size_t index, PromptEvent event) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (pass_ != nullptr) pass_->Begin();
  if (has_adapter_ && event.adapter.digest != result_.adapter.digest) {
    FailLocked(Aborted("model: '%s' was replaced while its inputs were read", event.adapter.name));
    return;
  }
  has_adapter_ = true;
  result_.adapter = std::move(event.adapter);
  result_.embeddings[index] = std::move(event.embedding);
  result_.num_tokens[index] = event.num_prompt_tokens;
}

void EmbedCall::OnFinish(const std::string& id, const FinishEvent& event) {
  std::vector<std::string> rest;
  bool is_queued = false;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    running_.erase(id);
    if (event.reason == FinishReason::kCancelled || event.reason == FinishReason::kError) {
      FailLocked(!event.status.ok() ? event.status : Cancelled("request: cancelled"));
    }
    result_.usage.prompt_tokens += event.usage.prompt_tokens;
    result_.usage.cached_tokens += event.usage.cached_tokens;
    Timings& timings = result_.timings;
    timings.queue_ms = std::max(timings.queue_ms, event.timings.queue_ms);
    timings.adapter_wait_ms = std::max(timings.adapter_wait_ms, event.timings.adapter_wait_ms);
    timings.prefill_ms = std::max(timings.prefill_ms, event.timings.prefill_ms);
    if (!failure_.ok()) rest.assign(running_.begin(), running_.end());
    is_queued = std::exchange(more_is_queued_, true);
  }
  for (const std::string& other : rest) engine_.Cancel(other);
  if (is_queued) return;  // it has not begun, so it will see this end too
  if (workers_.TryRun([self = shared_from_this()] { self->SubmitMore(); })) return;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    more_is_queued_ = false;
    FailLocked(ResourceExhausted("embeddings: too many inputs are waiting"));
  }
  EndIfOver();
}

// The first failure is the call's.
void EmbedCall::FailLocked(const Status& status) {
  if (failure_.ok()) failure_ = status;
}

void EmbedCall::EndIfOver() {
  Done done;
  std::unique_ptr<TenantGate::Pass> pass;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!running_.empty() || (failure_.ok() && !waiting_.empty())) return;
    done = std::exchange(done_, nullptr);
    pass = std::move(pass_);
  }
  if (!done) return;
  // Before the client hears of it, who may ask again at once.
  if (pass != nullptr) pass->SetUsed(result_.usage.prompt_tokens);
  ended_.adapter = result_.adapter;
  ended_.usage = result_.usage;
  ended_.timings = result_.timings;
  ended_.reason = failure_.ok() ? "embedding" : absl::IsCancelled(failure_) ? "cancelled" : "error";
  ended_.status = failure_;
  CountEnd(metrics_, traces_, ended_);
  pass.reset();
  if (failure_.ok()) {
    done(std::move(result_));
  } else {
    done(failure_);
  }
}

void EmbedCall::Cancel() {
  std::vector<std::string> running;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    FailLocked(Cancelled("request: cancelled"));
    running.assign(running_.begin(), running_.end());
  }
  for (const std::string& id : running) engine_.Cancel(id);
}

}  // namespace polyad
