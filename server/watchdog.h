#pragma once

// Notices an engine whose step does not end: says so in the log and in the metrics, and makes the
// server not ready until a step ends again. One thread asks it, a few times a second.

#include <cstdint>

#include "server/serving.h"

namespace polyad {

class Watchdog {
 public:
  // `serving` outlives it. The engine reports after every step, and idle once a second.
  Watchdog(Serving& serving, int64_t stall_ms) : serving_(serving), stall_ms_(stall_ms) {}

  void Check();

 private:
  Serving& serving_;
  const int64_t stall_ms_;
};

}  // namespace polyad
