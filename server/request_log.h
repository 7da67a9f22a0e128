#pragma once

// One line in the log for each request that was accepted, when it ends: "request" with its id,
// tenant, adapter and version, tokens, how it ended, where the time went, and its trace. Never what
// was asked or answered. Any thread.

#include <cstdint>
#include <string>
#include <string_view>

#include "engine/base/status.h"
#include "engine/request/token_event.h"
#include "engine/request/trace_context.h"

namespace polyad {

struct EndedRequest {
  std::string request_id;
  std::string tenant;
  AdapterIdentity adapter = {};  // empty where it ended before it began
  TraceContext trace = {};
  Usage usage = {};
  Timings timings = {};
  std::string reason = {};  // "stop", "length", "cancelled", "error", "embedding"
  Status status = {};       // why, where it failed
  int64_t begin_unix_us = 0;
  int64_t end_unix_us = 0;
};

void LogRequest(const EndedRequest& request);
int64_t UnixMicros();
// "stop", "length", "cancelled" or "error": what the log, traces and metrics say.
std::string_view ReasonText(FinishReason reason);

}  // namespace polyad
