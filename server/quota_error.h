#pragma once

// How the edge refuses what would be too much: RESOURCE_EXHAUSTED that says when to try again
// (google.rpc.RetryInfo; Retry-After in HTTP) and, where it is a tenant's quota, which
// (google.rpc.QuotaFailure). Pure functions, any thread.

#include <cstdint>
#include <string>
#include <string_view>

#include "engine/base/status.h"

namespace polyad {

inline constexpr char kRetryInfoUrl[] = "type.googleapis.com/google.rpc.RetryInfo";
inline constexpr char kQuotaFailureUrl[] = "type.googleapis.com/google.rpc.QuotaFailure";
inline constexpr int64_t kDefaultRetryMs = 1000;
inline constexpr int64_t kMaxRetryMs = 3'600'000;

// `quota` is a member of the tenants file. "quota max_requests: expected ..., got ...".
Status QuotaError(std::string_view quota, std::string_view expected, std::string_view got,
                  int64_t retry_ms);
// The quota that a status blames; empty where it blames none.
std::string BlamedQuota(const Status& status);

// Says when to try again, where the status does not yet and may be tried again; `retry_ms` is
// brought into [1, kMaxRetryMs].
Status WithRetry(Status status, int64_t retry_ms);
// When to try again: 0 where the status does not say.
int64_t RetryMillis(const Status& status);

}  // namespace polyad
