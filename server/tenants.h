#pragma once

// Who may use the server, and how much of it: the tenants file, JSON of our own
// (docs/tenants.md). Keys, and the names that clients' certificates have, are held as SHA-256 only.
// Immutable once parsed, any thread. Errors: INVALID_ARGUMENT naming the tenant and the member at
// fault.

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/digest.h"
#include "engine/base/status.h"
#include "engine/request/tenant_share.h"

namespace polyad {

// What a tenant may have; 0 stands for no limit but in max_priority.
struct TenantLimits {
  int64_t weight = kUnitWeight;   // thousandths: of service, against the others' weights
  int64_t max_requests = 0;       // accepted and not yet ended
  int64_t max_queued = 0;         // of them, not yet begun
  int64_t tokens_per_second = 0;  // of prompts and outputs
  int64_t burst_tokens = 0;       // that may be saved up; 0: ten seconds' worth
  int64_t max_sequences = 0;      // running at a time
  int64_t max_kv_mib = 0;         // held by those
  int64_t max_adapter_mib = 0;    // files of the adapters that name the tenant
  int64_t max_priority = 0;       // of a request

  int64_t burst() const { return burst_tokens > 0 ? burst_tokens : 10 * tokens_per_second; }
};

// Whom a client's certificate stands for.
struct PeerOwner {
  const std::string* tenant = nullptr;
  bool admin = false;
  bool metrics = false;

  // One certificate, one of them: whoever is known as several is refused.
  int count() const { return (tenant != nullptr ? 1 : 0) + (admin ? 1 : 0) + (metrics ? 1 : 0); }
};

class TenantTable {
 public:
  TenantTable() = default;
  TenantTable(TenantTable&&) = default;
  TenantTable& operator=(TenantTable&&) = default;
  static StatusOr<TenantTable> Parse(std::string_view json);

  bool empty() const { return tenants_.empty(); }
  size_t num_tenants() const { return tenants_.size(); }
  size_t num_keys() const { return keys_.size(); }
  size_t num_identities() const { return identities_.size(); }
  bool has_admin_identities() const { return has_admin_; }
  bool has_metrics_identities() const { return has_metrics_; }
  // Whose key has that digest; null where nobody's has. Compares with every key, in constant time.
  const std::string* FindByKey(const Digest& digest) const;
  // Compares every name with every identity, in constant time. Names of two owners: nobody's.
  PeerOwner FindByNames(const std::vector<Digest>& names) const;
  const TenantLimits* Find(std::string_view name) const;  // null where there is no such tenant

 private:
  static StatusOr<TenantTable> ParseFile(std::string_view json);

  struct Key {
    const std::string* tenant;  // a key of tenants_
    Digest digest;
  };
  enum class Role { kTenant, kAdmin, kMetrics };
  struct Identity {
    Role role;
    const std::string* tenant;  // a key of tenants_; null for the other roles
    Digest digest;
  };
  Status AddKeys(const std::string& tenant, const std::vector<std::string>& digests);
  Status AddIdentities(const char* member, Role role, const std::string* tenant,
                       const std::vector<std::string>& identities);

  std::map<std::string, TenantLimits, std::less<>> tenants_;
  std::vector<Key> keys_;
  std::vector<Identity> identities_;
  bool has_admin_ = false;
  bool has_metrics_ = false;
};

// Whether two digests are equal, in time that does not tell where they differ.
bool EqualInConstantTime(const Digest& a, const Digest& b);

}  // namespace polyad
