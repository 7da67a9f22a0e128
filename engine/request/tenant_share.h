#pragma once

// What a tenant may have of the engine while others want it too. Plain values that come with each
// of its requests; the newest request's count (runtime/tenant_ledger.h).

#include <cstdint>

namespace polyad {

inline constexpr int64_t kUnitWeight = 1000;
inline constexpr int64_t kMaxTenantWeight = 1000 * kUnitWeight;

struct TenantShare {
  int64_t weight = kUnitWeight;  // thousandths, at least 1: of service, against the others' weights
  int64_t max_sequences = 0;     // running at a time; 0: no limit
  int64_t max_kv_blocks = 0;     // that its running sequences hold; 0: no limit

  // What service of that cost adds to a virtual token counter.
  int64_t ChargeOf(int64_t cost) const { return cost * kUnitWeight / weight; }
};

}  // namespace polyad
