#pragma once

// What a request has to pass before anything is allocated for it: its tenant's quotas (requests,
// waiting requests, tokens per second), the server's own bounds on what waits (tokens, bytes), and
// its deadline, and the server's bound on waiting, against how long the queue takes. Every check is
// O(1). Tokens are a bucket that fills at the tenant's rate: a request takes what it may cost at
// most and gives back what it did not use; one that costs more than the bucket holds passes a full
// one and leaves a debt.
//
// A tenant's wait is estimated by its place among its own requests and its weight among those who
// wait, as the scheduler serves them; never longer than the whole queue. Thread-safe; outlives its
// passes. Errors: quota_error.h.

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine/base/clock.h"
#include "engine/base/status.h"
#include "server/queue_estimate.h"
#include "server/tenants.h"

namespace polyad {

class TenantGate {
 public:
  struct Options {
    int64_t max_queued_tokens = int64_t{1} << 20;  // of prompts and outputs that wait
    int64_t max_held_bytes = int64_t{256} << 20;   // of requests that have not ended
    int64_t max_wait_us = 0;                       // by the estimate; 0: no limit
    int64_t num_places = 64;                       // that run at a time, for the estimate
  };
  struct Ask {
    std::string tenant;
    TenantLimits limits;
    int64_t num_tokens = 0;  // at most, of prompt and output
    int64_t num_bytes = 0;
    int64_t deadline_us = 0;  // 0: none
  };
  struct Counts {
    int64_t queued_requests = 0;
    int64_t queued_tokens = 0;
    int64_t held_bytes = 0;
  };

  struct TenantCounts {
    std::string tenant;
    int64_t num_requests = 0;  // accepted and not ended
    int64_t num_queued = 0;    // of those, that have not begun
  };

  // A request that passed. Ends with it.
  class Pass {
   public:
    Pass(TenantGate& gate, const Ask& ask, int64_t now_us)
        : gate_(gate), ask_(ask), came_us_(now_us) {}
    ~Pass() { gate_.Leave(*this); }
    Pass(const Pass&) = delete;
    Pass& operator=(const Pass&) = delete;

    void Begin() { gate_.Begin(*this); }                          // it waits no longer
    void SetUsed(int64_t num_tokens) { num_used_ = num_tokens; }  // of what it asked for

   private:
    friend class TenantGate;
    TenantGate& gate_;
    const Ask ask_;
    const int64_t came_us_;
    int64_t began_us_ = 0;
    bool waits_ = true;
    int64_t num_used_ = 0;
  };

  TenantGate(const Options& options, Clock& clock)
      : options_(options), clock_(clock), queue_(options.num_places) {}

  StatusOr<std::unique_ptr<Pass>> Enter(const Ask& ask);
  // When the tenant's next request may find room in the queue.
  int64_t RetryMillisOf(const std::string& tenant);
  Counts counts() const;
  // Of the tenants that have requests now.
  std::vector<TenantCounts> tenant_counts() const;

 private:
  static constexpr size_t kMaxIdleTenants = 8192;

  struct Tenant {
    TenantLimits limits;
    int64_t num_requests = 0;
    int64_t num_queued = 0;
    double tokens = 0;  // in the bucket; below zero: a debt
    int64_t tokens_us = 0;
    double request_us = 0;  // mean of those that ended, the last ones most
    bool has_bucket = false;
  };

  Status CheckQuotas(const Ask& ask, Tenant& tenant, int64_t now_us);
  Status CheckServer(const Ask& ask, const Tenant& tenant, int64_t now_us);
  void Fill(Tenant& tenant, int64_t now_us);
  double WaitMicros(const Tenant& tenant, int64_t now_us);
  void Begin(Pass& pass);
  void Leave(Pass& pass);
  void LeaveQueueLocked(Pass& pass);
  void ForgetIdleLocked();

  const Options options_;
  Clock& clock_;
  mutable std::mutex mutex_;
  std::map<std::string, Tenant> tenants_;
  QueueEstimate queue_;
  int64_t waiting_weight_ = 0;  // of the tenants that have somebody waiting
  int64_t queued_tokens_ = 0;
  int64_t held_bytes_ = 0;
};

}  // namespace polyad
