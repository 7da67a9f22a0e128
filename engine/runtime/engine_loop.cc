#include "engine/runtime/engine_loop.h"

#include <algorithm>
#include <chrono>
#include <unordered_set>

#include "engine/base/log.h"
#include "engine/runtime/commit.h"
#include "engine/runtime/sample_step.h"
#include "engine/runtime/scheduler.h"
#include "engine/runtime/share_memory.h"
#include "engine/runtime/step_batch.h"
#include "engine/runtime/swap_blocks.h"

namespace polyad {
namespace {

// Nothing queued and nothing running: only a message can change that, so the wait may be long.
constexpr std::chrono::milliseconds kIdleWait{1000};
// Work exists but none of it could run: blocks freed in this turn serve the next.
constexpr std::chrono::milliseconds kRetryWait{1};

}  // namespace

EngineLoop::EngineLoop(Options options, Parts parts)
    : options_(std::move(options)),
      parts_(parts),
      state_(options_.limits, parts_.spill, parts_.memory),
      sampler_(options_.vocab_size) {
  PublishLoad();
}

void EngineLoop::Run() {
  bool ran = false;
  while (!shut_down_) {
    if (!ran) {
      DrainInbox(parts_.inbox.DrainWait(state_.idle() ? kIdleWait : kRetryWait));
    }
    ran = Step();
  }
  // Nobody is left unanswered: what was posted before the closing ends as cancelled.
  parts_.inbox.Close();
  DrainInbox(parts_.inbox.DrainNow());
  PublishStep();
}

bool EngineLoop::Step() {
  DrainInbox(parts_.inbox.DrainNow());
  const int64_t now_us = parts_.clock.NowMicros();
  ShareMemory(state_, parts_.runner, now_us);
  StepPlan plan = Plan(state_.View(now_us));
  ApplyPlan(plan, state_, now_us);
  const bool ran = !plan.work.empty() && RunPlan(std::move(plan));
  PublishStep();
  return ran;
}

bool EngineLoop::RunPlan(StepPlan plan) {
  SwapBlocks(state_, parts_.runner, parts_.clock);
  std::erase_if(plan.work,
                [this](const StepPlan::Work& work) { return state_.Find(work.id) == nullptr; });
  if (plan.work.empty()) return true;
  const int64_t begin_us = parts_.clock.NowMicros();
  const FlatStep flat = Flatten(plan, state_);
  StatusOr<FloatRows> logits = parts_.runner.Run(flat.batch);
  if (!logits.ok()) {
    Log(LogLevel::kError, "step_failed", {{"status", logits.status().ToString()}});
    FailStep(plan, logits.status(), state_, parts_.clock.NowMicros());
    return true;
  }
  std::vector<SampledItem> sampled = SampleStep(flat, *logits, parts_.runner, sampler_);
  const int64_t end_us = parts_.clock.NowMicros();
  state_.swap_cost.SawStep(flat.batch.num_rows(), end_us - begin_us);
  Commit(flat, std::move(sampled), state_, parts_.observer, end_us);
  if (parts_.observer != nullptr) {
    parts_.observer->OnStep(flat.batch.num_rows(), static_cast<int64_t>(flat.items.size()),
                            static_cast<double>(end_us - begin_us) / 1000.0);
  }
  return true;
}

void EngineLoop::DrainInbox(std::vector<EngineMessage> messages) {
  for (EngineMessage& message : messages) {
    std::visit([this](auto&& body) { Handle(std::move(body)); }, std::move(message));
  }
}

void EngineLoop::Handle(Arrive arrive) {
  const int64_t now_us = parts_.clock.NowMicros();
  const int64_t number = arrive.number;
  const auto adapter = arrive.request->adapter;
  state_.AddRequest(std::move(arrive), now_us);
  if (shut_down_) {
    state_.FinishRequest(number, FinishReason::kCancelled, Cancelled("the server is stopping"),
                         now_us);
  } else if (adapter != nullptr &&
             std::any_of(retired_.begin(), retired_.end(),
                         [&](AdapterVersionId version) { return adapter->Uses(version); })) {
    state_.FinishRequest(number, FinishReason::kError, Aborted("the adapter was unloaded"), now_us);
  }
}

void EngineLoop::Handle(const CancelRequest& cancel) {
  state_.FinishRequest(cancel.number, FinishReason::kCancelled,
                       Cancelled("cancelled by the client"), parts_.clock.NowMicros());
}

void EngineLoop::Handle(const StopMatched& stop) {
  Sequence* sequence = state_.Find(IdOf(stop.number, stop.choice));
  if (sequence != nullptr) state_.FinishChoice(*sequence, FinishEvent{}, parts_.clock.NowMicros());
}

void EngineLoop::Handle(const RetireVersion& retire) {
  retired_.push_back(retire.version);
  if (retired_.size() > kMaxRetiredVersions) retired_.pop_front();
  for (const int64_t number : state_.RequestsOf(retire.version)) {
    state_.FinishRequest(number, FinishReason::kError, Aborted("the adapter was unloaded"),
                         parts_.clock.NowMicros());
  }
}

void EngineLoop::Handle(const ForgetHead& forget) {
  state_.pool.Forget(forget.keys);
  if (state_.spill != nullptr) state_.spill->Forget(forget.keys);
}

void EngineLoop::Handle(const ShareAgain&) {}  // the step that follows does

void EngineLoop::Handle(const Shutdown&) {
  shut_down_ = true;
  while (!state_.requests().empty()) {
    state_.FinishRequest(state_.requests().begin()->first, FinishReason::kCancelled,
                         Cancelled("the server is stopping"), parts_.clock.NowMicros());
  }
}

// The load first, so that who has seen a request's last event finds its blocks free there.
void EngineLoop::PublishStep() {
  for (const int64_t number : state_.left_queue) parts_.registry.LeaveQueue(number);
  state_.left_queue.clear();
  std::vector<EngineOutput> accepted = TakeOutputs();
  PublishLoad();
  if (!accepted.empty()) parts_.outputs.PushAllUrgent(std::move(accepted));
}

// Only this thread adds to the queue, so the room seen here can only grow. A request whose event
// finds no room ends: its later events in this step are dropped too, and its finish, which always
// passes, says why.
std::vector<EngineOutput> EngineLoop::TakeOutputs() {
  if (state_.outputs.empty()) return {};
  int64_t room = options_.max_pending_events - static_cast<int64_t>(parts_.outputs.size());
  std::unordered_set<int64_t> overrun;
  const Status why =
      ResourceExhausted("undelivered events: expected at most %d", options_.max_pending_events);
  std::vector<EngineOutput> accepted;
  const auto sort_out = [&] {
    for (EngineOutput& output : std::exchange(state_.outputs, {})) {
      if (auto* finish = std::get_if<FinishEvent>(&output.event)) {
        if (overrun.contains(output.number) && finish->reason != FinishReason::kCancelled) {
          finish->reason = FinishReason::kError;
          finish->status = why;
        }
      } else if (room <= 0 || overrun.contains(output.number)) {
        overrun.insert(output.number);
        continue;
      } else {
        --room;
      }
      accepted.push_back(std::move(output));
    }
  };
  sort_out();
  for (const int64_t number : overrun) {
    state_.FinishRequest(number, FinishReason::kError, why, parts_.clock.NowMicros());
  }
  sort_out();  // the finishes that this made
  return accepted;
}

void EngineLoop::PublishLoad() {
  EngineLoad load = state_.Snapshot();
  const int64_t now_us = parts_.clock.NowMicros();
  std::lock_guard<std::mutex> lock(load_mutex_);
  load_ = std::move(load);
  last_step_us_ = now_us;
}

EngineLoad EngineLoop::load() const {
  EngineLoad load;
  {
    std::lock_guard<std::mutex> lock(load_mutex_);
    load = load_;
    load.last_step_age_ms = (parts_.clock.NowMicros() - last_step_us_) / 1000;
  }
  load.draining = parts_.registry.draining();
  return load;
}

}  // namespace polyad
