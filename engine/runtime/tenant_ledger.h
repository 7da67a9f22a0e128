#pragma once

// Virtual token counters: how much each tenant was served, in token costs (scheduler.h) over its
// weight, and what it may have, which is what its newest request says. A tenant
// that comes back after a pause is lifted to the least served of the active ones, so that idling
// earns no credit; it keeps a larger counter, so that pausing for a moment pays no debt. At most
// kMaxIdleTenants idle tenants are remembered. Engine thread only.

#include <cstdint>
#include <map>
#include <string>

#include "engine/request/tenant_share.h"

namespace polyad {

class TenantLedger {
 public:
  static constexpr size_t kMaxIdleTenants = 4096;

  struct Account {
    int64_t served = 0;
    TenantShare share;
    int64_t num_requests = 0;  // alive
    int64_t view_index = -1;   // scratch of whoever builds a SchedulerView
  };

  // A request arrives; the pointer holds until its Leave.
  Account* Enter(const std::string& tenant, const TenantShare& share = {});
  void Leave(const std::string& tenant);

  size_t size() const { return accounts_.size(); }
  // Aborts unless each tenant has as many requests as `num_alive` says, and the idle are counted.
  void CheckInvariants(const std::map<std::string, int64_t>& num_alive) const;

 private:
  std::map<std::string, Account> accounts_;
  size_t num_idle_ = 0;
};

}  // namespace polyad
