#include "server/watchdog.h"

#include "engine/base/log.h"

namespace polyad {

void Watchdog::Check() {
  const EngineLoad load = serving_.engine.load();
  const bool stalled = load.last_step_age_ms > stall_ms_;
  if (serving_.stalled.exchange(stalled) == stalled) return;
  if (stalled) {
    serving_.metrics.OnStall();
    Log(LogLevel::kError, "engine_stalled",
        {{"step_ms", load.last_step_age_ms},
         {"expected_at_most_ms", stall_ms_},
         {"running", load.num_running},
         {"waiting", load.num_waiting}});
  } else {
    Log(LogLevel::kWarning, "engine_goes_on", {{"running", load.num_running}});
  }
  TellHealth(serving_);
}

}  // namespace polyad
