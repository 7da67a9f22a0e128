#include "engine/runtime/tenant_ledger.h"

#include <algorithm>
#include <optional>

#include "engine/base/check.h"

namespace polyad {

TenantLedger::Account* TenantLedger::Enter(const std::string& tenant, const TenantShare& share) {
  const auto [entry, inserted] = accounts_.try_emplace(tenant);
  Account& account = entry->second;
  account.share = share;
  if (account.num_requests++ > 0) return &account;
  if (!inserted) --num_idle_;
  std::optional<int64_t> least;
  for (const auto& [name, other] : accounts_) {
    if (&other == &account || other.num_requests == 0) continue;
    least = std::min(least.value_or(other.served), other.served);
  }
  account.served = std::max(account.served, least.value_or(account.served));
  return &account;
}

void TenantLedger::Leave(const std::string& tenant) {
  const auto entry = accounts_.find(tenant);
  POLYAD_CHECK(entry != accounts_.end() && entry->second.num_requests > 0,
               "left as often as entered");
  if (--entry->second.num_requests > 0) return;
  if (num_idle_ < kMaxIdleTenants) {
    ++num_idle_;
  } else {
    accounts_.erase(entry);
  }
}

void TenantLedger::CheckInvariants(const std::map<std::string, int64_t>& num_alive) const {
  size_t num_idle_seen = 0;
  size_t num_active_seen = 0;
  for (const auto& [tenant, account] : accounts_) {
    const auto alive = num_alive.find(tenant);
    POLYAD_CHECK(account.num_requests == (alive == num_alive.end() ? 0 : alive->second),
                 "a tenant's requests are counted");
    ++(account.num_requests == 0 ? num_idle_seen : num_active_seen);
  }
  POLYAD_CHECK(num_active_seen == num_alive.size(), "every tenant with a request has an account");
  POLYAD_CHECK(num_idle_seen == num_idle_ && num_idle_ <= kMaxIdleTenants,
               "idle tenants are counted");
}

}  // namespace polyad
