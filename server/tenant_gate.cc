#include "server/tenant_gate.h"

#include <algorithm>

#include "server/quota_error.h"

namespace polyad {
namespace {

// The longest wait that is let in, of the longest allowed: what ends next is not what ended last.
constexpr double kSureShare = 0.8;

int64_t MillisOf(double micros) {
  return static_cast<int64_t>(std::min(micros / 1000, static_cast<double>(kMaxRetryMs))) + 1;
}

std::string AtMost(int64_t count, const char* unit) {
  return absl::StrFormat("at most %d %s", count, unit);
}

}  // namespace

StatusOr<std::unique_ptr<TenantGate::Pass>> TenantGate::Enter(const Ask& ask) {
  const int64_t now_us = clock_.NowMicros();
  std::lock_guard<std::mutex> lock(mutex_);
  ForgetIdleLocked();
  Tenant& tenant = tenants_[ask.tenant];
  if (tenant.num_queued > 0) waiting_weight_ += ask.limits.weight - tenant.limits.weight;
  tenant.limits = ask.limits;  // as the newest file has them
  POLYAD_RETURN_IF_ERROR(CheckQuotas(ask, tenant, now_us));
  POLYAD_RETURN_IF_ERROR(CheckServer(ask, tenant, now_us));
  if (ask.limits.tokens_per_second > 0) tenant.tokens -= static_cast<double>(ask.num_tokens);
  ++tenant.num_requests;
  if (tenant.num_queued++ == 0) waiting_weight_ += tenant.limits.weight;
  queue_.Arrive(now_us);
  queued_tokens_ += ask.num_tokens;
  held_bytes_ += ask.num_bytes;
  return std::make_unique<Pass>(*this, ask, now_us);
}

Status TenantGate::CheckQuotas(const Ask& ask, Tenant& tenant, int64_t now_us) {
  const TenantLimits& limits = ask.limits;
  if (limits.max_requests > 0 && tenant.num_requests >= limits.max_requests) {
    const double next_us = tenant.request_us / static_cast<double>(tenant.num_requests);
    return QuotaError("max_requests", AtMost(limits.max_requests, "requests at a time"), "one more",
                      next_us > 0 ? MillisOf(next_us) : kDefaultRetryMs);
  }
  if (limits.max_queued > 0 && tenant.num_queued >= limits.max_queued) {
    const double wait_us = WaitMicros(tenant, now_us) / static_cast<double>(tenant.num_queued);
    return QuotaError("max_queued", AtMost(limits.max_queued, "waiting requests"), "one more",
                      wait_us > 0 ? MillisOf(wait_us) : kDefaultRetryMs);
  }
  if (limits.tokens_per_second == 0) return absl::OkStatus();
  Fill(tenant, now_us);
  const auto need = static_cast<double>(std::min(ask.num_tokens, limits.burst()));
  if (tenant.tokens >= need) return absl::OkStatus();
  const double wait_us =
      (need - tenant.tokens) / static_cast<double>(limits.tokens_per_second) * 1e6;
  return QuotaError(
      "tokens_per_second",
      AtMost(std::max<int64_t>(static_cast<int64_t>(tenant.tokens), 0), "tokens for now"),
      absl::StrFormat("a request of up to %d", ask.num_tokens), MillisOf(wait_us));
}

Status TenantGate::CheckServer(const Ask& ask, const Tenant& tenant, int64_t now_us) {
  const double wait_us = WaitMicros(tenant, now_us);
  const int64_t retry_ms = wait_us > 0 ? MillisOf(wait_us) : kDefaultRetryMs;
  if (queued_tokens_ > 0 && queued_tokens_ + ask.num_tokens > options_.max_queued_tokens) {
    return WithRetry(ResourceExhausted("queue: expected at most %d waiting tokens of prompts and "
                                       "outputs, got more with this request's %d",
                                       options_.max_queued_tokens, ask.num_tokens),
                     retry_ms);
  }
  if (held_bytes_ > 0 && held_bytes_ + ask.num_bytes > options_.max_held_bytes) {
    return WithRetry(ResourceExhausted("requests: expected at most %d bytes held, got more with "
                                       "this request's %d",
                                       options_.max_held_bytes, ask.num_bytes),
                     retry_ms);
  }
  if (options_.max_wait_us > 0 &&
      wait_us > kSureShare * static_cast<double>(options_.max_wait_us)) {
    return WithRetry(ResourceExhausted("queue: expected a wait of surely at most %d ms, got an "
                                       "estimate of %d ms",
                                       options_.max_wait_us / 1000, retry_ms),
                     retry_ms);
  }
  if (ask.deadline_us > 0 && static_cast<double>(ask.deadline_us - now_us) < wait_us) {
    return WithRetry(ResourceExhausted("deadline: expected more than the %d ms that the queue "
                                       "takes, got %d ms",
                                       retry_ms, (ask.deadline_us - now_us) / 1000),
                     retry_ms);
  }
  return absl::OkStatus();
}

void TenantGate::Fill(Tenant& tenant, int64_t now_us) {
  const auto burst = static_cast<double>(tenant.limits.burst());
  if (!tenant.has_bucket) tenant.tokens = burst;
  tenant.has_bucket = true;
  const auto passed_us = static_cast<double>(std::max<int64_t>(now_us - tenant.tokens_us, 0));
  const auto rate = static_cast<double>(tenant.limits.tokens_per_second);
  tenant.tokens = std::min(burst, tenant.tokens + passed_us * rate / 1e6);
  tenant.tokens_us = now_us;
}

// Until the turn of the tenant's next request comes.
double TenantGate::WaitMicros(const Tenant& tenant, int64_t now_us) {
  const int64_t num_queued = queue_.num_queued();
  if (num_queued == 0) return 0;
  const double gap_us = queue_.GapMicros(now_us);
  const auto weight = static_cast<double>(tenant.limits.weight);
  const double all_weight =
      static_cast<double>(waiting_weight_) + (tenant.num_queued == 0 ? weight : 0);
  const double turns = static_cast<double>(tenant.num_queued + 1) * all_weight / weight;
  return gap_us * std::min(turns, static_cast<double>(num_queued + 1));
}

int64_t TenantGate::RetryMillisOf(const std::string& tenant) {
  const int64_t now_us = clock_.NowMicros();
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = tenants_.find(tenant);
  const double wait_us = found == tenants_.end() ? 0 : WaitMicros(found->second, now_us);
  return wait_us > 0 ? MillisOf(wait_us) : kDefaultRetryMs;
}

TenantGate::Counts TenantGate::counts() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return {queue_.num_queued(), queued_tokens_, held_bytes_};
}

std::vector<TenantGate::TenantCounts> TenantGate::tenant_counts() const {
  std::vector<TenantCounts> out;
  std::lock_guard<std::mutex> lock(mutex_);
  for (const auto& [name, tenant] : tenants_) {
    if (tenant.num_requests > 0) out.push_back({name, tenant.num_requests, tenant.num_queued});
  }
  return out;
}

void TenantGate::Begin(Pass& pass) {
  const int64_t now_us = clock_.NowMicros();
  std::lock_guard<std::mutex> lock(mutex_);
  if (!pass.waits_) return;
  pass.began_us_ = now_us;
  LeaveQueueLocked(pass);
  queue_.Begin(now_us);
}

void TenantGate::LeaveQueueLocked(Pass& pass) {
  pass.waits_ = false;
  Tenant& tenant = tenants_[pass.ask_.tenant];
  if (--tenant.num_queued == 0) waiting_weight_ -= tenant.limits.weight;
  queued_tokens_ -= pass.ask_.num_tokens;
}

void TenantGate::Leave(Pass& pass) {
  constexpr double kNewest = 0.2;  // share of the mean
  const int64_t now_us = clock_.NowMicros();
  std::lock_guard<std::mutex> lock(mutex_);
  if (pass.waits_) {
    LeaveQueueLocked(pass);
    queue_.GiveUp(now_us);
  } else {
    queue_.End(now_us - pass.began_us_, now_us);
  }
  Tenant& tenant = tenants_[pass.ask_.tenant];
  --tenant.num_requests;
  held_bytes_ -= pass.ask_.num_bytes;
  const auto took_us = static_cast<double>(now_us - pass.came_us_);
  if (pass.num_used_ > 0) {
    tenant.request_us = tenant.request_us > 0
                            ? tenant.request_us + kNewest * (took_us - tenant.request_us)
                            : took_us;
  }
  if (pass.ask_.limits.tokens_per_second > 0 && tenant.has_bucket) {
    tenant.tokens += static_cast<double>(pass.ask_.num_tokens - pass.num_used_);
  }
}

// Tenants come from the operator's files; only files that change over and over make this many.
void TenantGate::ForgetIdleLocked() {
  if (tenants_.size() <= kMaxIdleTenants) return;
  std::erase_if(tenants_, [](const auto& entry) { return entry.second.num_requests == 0; });
}

}  // namespace polyad
