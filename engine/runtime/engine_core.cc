#include "engine/runtime/engine_core.h"

#include <utility>

namespace polyad {
namespace {

// Alive beyond the queue: running, or ended and not yet delivered.
int64_t MaxAlive(const EngineLoop::Options& options, int64_t max_queued) {
  return max_queued + 4 * options.limits.scheduler.max_running;
}

}  // namespace

EngineCore::EngineCore(const EngineLoop::Options& options, int64_t max_queued, Parts parts)
    : registry_(max_queued, MaxAlive(options, max_queued)),
      inbox_(static_cast<size_t>(max_queued)),
      outputs_(static_cast<size_t>(options.max_pending_events)),
      loop_(options, {parts.runner, parts.clock, inbox_, outputs_, registry_, parts.observer,
                      parts.spill, parts.memory}),
      delivery_({parts.tokenizer, parts.clock, inbox_, registry_, parts.observer}),
      loop_thread_([this] { loop_.Run(); }),
      delivery_thread_([this] { delivery_.Run(outputs_); }) {}

EngineCore::~EngineCore() {
  inbox_.PushUrgent(Shutdown{});
  loop_thread_.join();
  outputs_.Close();
  delivery_thread_.join();
}

Status EngineCore::Post(Arrive arrive) {
  const int64_t number = arrive.number;
  if (inbox_.TryPush(std::move(arrive))) return absl::OkStatus();
  registry_.End(number);
  if (inbox_.closed()) return Unavailable("the server is stopping");
  return ResourceExhausted("engine inbox: full, try again later");
}

void EngineCore::Cancel(std::string_view request_id) {
  if (const auto number = registry_.Find(request_id)) inbox_.PushUrgent(CancelRequest{*number});
}

void EngineCore::Retire(AdapterVersionId version) { inbox_.PushUrgent(RetireVersion{version}); }

void EngineCore::Forget(std::vector<PrefixKey> head) {
  inbox_.PushUrgent(ForgetHead{std::move(head)});
}

void EngineCore::ShareMemory() { inbox_.PushUrgent(ShareAgain{}); }

}  // namespace polyad
