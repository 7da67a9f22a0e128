#include "server/request_log.h"

#include <chrono>

#include "absl/status/status.h"
#include "engine/base/log.h"

namespace polyad {

int64_t UnixMicros() {
  return std::chrono::duration_cast<std::chrono::microseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

std::string_view ReasonText(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kError:
      return "error";
  }
  return "error";
}

void LogRequest(const EndedRequest& request) {
  Log(LogLevel::kInfo, "request",
      {{"request_id", request.request_id},
       {"tenant", request.tenant},
       {"adapter", request.adapter.name},
       {"version", request.adapter.version},
       {"reason", request.reason},
       {"status", absl::StatusCodeToString(request.status.code())},
       {"prompt_tokens", request.usage.prompt_tokens},
       {"cached_tokens", request.usage.cached_tokens},
       {"completion_tokens", request.usage.completion_tokens},
       {"queue_ms", request.timings.queue_ms},
       {"adapter_wait_ms", request.timings.adapter_wait_ms},
       {"prefill_ms", request.timings.prefill_ms},
       {"decode_ms", request.timings.decode_ms},
       {"trace_id", request.trace.trace_id},
       {"span_id", request.trace.span_id},
       {"parent_id", request.trace.parent_id}});
}

}  // namespace polyad
