#include "server/quota_error.h"

#include <algorithm>

#include "absl/strings/cord.h"
#include "google/rpc/status_details.pb.h"

namespace polyad {

Status QuotaError(std::string_view quota, std::string_view expected, std::string_view got,
                  int64_t retry_ms) {
  const std::string description = absl::StrFormat("expected %s, got %s", expected, got);
  Status status = ResourceExhausted("quota %s: %s", quota, description);
  google::rpc::QuotaFailure detail;
  auto* violation = detail.add_violations();
  violation->set_subject(std::string(quota));
  violation->set_description(description);
  status.SetPayload(kQuotaFailureUrl, absl::Cord(detail.SerializeAsString()));
  return WithRetry(std::move(status), retry_ms);
}

std::string BlamedQuota(const Status& status) {
  const auto payload = status.GetPayload(kQuotaFailureUrl);
  google::rpc::QuotaFailure detail;
  if (!payload.has_value() || !detail.ParseFromString(std::string(*payload))) return "";
  return detail.violations_size() == 0 ? "" : detail.violations(0).subject();
}

Status WithRetry(Status status, int64_t retry_ms) {
  const bool may_retry = status.code() == absl::StatusCode::kResourceExhausted ||
                         status.code() == absl::StatusCode::kUnavailable;
  if (!may_retry || RetryMillis(status) > 0) return status;
  const int64_t millis = std::clamp<int64_t>(retry_ms, 1, kMaxRetryMs);
  google::rpc::RetryInfo detail;
  detail.mutable_retry_delay()->set_seconds(millis / 1000);
  detail.mutable_retry_delay()->set_nanos(static_cast<int32_t>(millis % 1000 * 1'000'000));
  status.SetPayload(kRetryInfoUrl, absl::Cord(detail.SerializeAsString()));
  return status;
}

int64_t RetryMillis(const Status& status) {
  const auto payload = status.GetPayload(kRetryInfoUrl);
  google::rpc::RetryInfo detail;
  if (!payload.has_value() || !detail.ParseFromString(std::string(*payload))) return 0;
  return detail.retry_delay().seconds() * 1000 + detail.retry_delay().nanos() / 1'000'000;
}

}  // namespace polyad
