#pragma once

// The engine thread. Owns all mutable state (EngineState); the world reaches it through the inbox
// and hears of it through the output queue and a load snapshot. Step is one turn: DrainInbox, Plan,
// Run, Commit; Run repeats it until Shutdown, asleep on the inbox while there is nothing to do.
// Step may be called directly instead (the simulator does), from one thread. Never blocks on its
// readers: where the output queue is full, the requests that produced too much are ended.

#include <cstdint>
#include <deque>
#include <mutex>
#include <set>

#include "engine/base/clock.h"
#include "engine/model/sampler.h"
#include "engine/model/step_runner.h"
#include "engine/runtime/engine_load.h"
#include "engine/runtime/engine_state.h"
#include "engine/runtime/messages.h"
#include "engine/runtime/request_registry.h"

namespace polyad {

class EngineLoop {
 public:
  struct Parts {  // all outlive the loop
    StepRunner& runner;
    Clock& clock;
    Inbox& inbox;
    OutputQueue& outputs;
    RequestRegistry& registry;
    EngineObserver* observer = nullptr;
    SpillStore* spill = nullptr;
    MemoryLedger* memory = nullptr;  // shared with adapters; null: K/V has its own
  };
  struct Options {
    EngineLimits limits;
    int64_t vocab_size = 0;
    int64_t max_pending_events = 65536;
  };
  EngineLoop(Options options, Parts parts);

  void Run();
  // True where rows were run.
  bool Step();

  EngineLoad load() const;  // any thread
  const EngineState& state() const { return state_; }

 private:
  static constexpr size_t kMaxRetiredVersions = 4096;

  void DrainInbox(std::vector<EngineMessage> messages);
  void Handle(Arrive arrive);
  void Handle(const CancelRequest& cancel);
  void Handle(const StopMatched& stop);
  void Handle(const RetireVersion& retire);
  void Handle(const ForgetHead& forget);
  void Handle(const ShareAgain& share);
  void Handle(const Shutdown& shutdown);
  bool RunPlan(StepPlan plan);
  void PublishStep();
  std::vector<EngineOutput> TakeOutputs();
  void PublishLoad();

  const Options options_;
  const Parts parts_;
  EngineState state_;
  Sampler sampler_;
  std::deque<AdapterVersionId>
      retired_;  // unloaded by force; a late arrival still holding one is ended
  bool shut_down_ = false;

  mutable std::mutex load_mutex_;
  EngineLoad load_;           // guarded by load_mutex_
  int64_t last_step_us_ = 0;  // guarded by load_mutex_
};

}  // namespace polyad
