// Any bytes as a tenants file: what is accepted keeps to its limits and finds each key's tenant,
// and what is refused says so without quoting what could be a key.

#include <cstdint>
#include <string>
#include <string_view>

#include "engine/base/adapter_name.h"
#include "engine/base/check.h"
#include "engine/base/digest.h"
#include "server/tenants.h"

namespace {

constexpr size_t kDigestChars = 64;

void CheckLimits(const polyad::TenantLimits& limits) {
  POLYAD_CHECK(limits.weight >= 1 && limits.weight <= polyad::kMaxTenantWeight, "a weight");
  for (const int64_t count :
       {limits.max_requests, limits.max_queued, limits.tokens_per_second, limits.burst_tokens,
        limits.max_sequences, limits.max_kv_mib, limits.max_adapter_mib}) {
    POLYAD_CHECK(count >= 0 && count <= int64_t{1} << 40, "a count");
  }
  POLYAD_CHECK(limits.burst() >= 0, "a burst");
  POLYAD_CHECK(limits.max_priority >= -100 && limits.max_priority <= 100, "a priority");
}

// Every run of 64 hex digits of the file, as a key's digest would be.
void CheckKeys(const polyad::TenantTable& table, std::string_view text) {
  size_t found = 0;
  for (size_t at = 0; at + kDigestChars <= text.size(); ++at) {
    const auto digest = polyad::DigestFromHex(text.substr(at, kDigestChars));
    if (!digest) continue;
    const std::string* tenant = table.FindByKey(*digest);
    if (tenant == nullptr) continue;
    ++found;
    POLYAD_CHECK(polyad::IsAdapterName(*tenant), "a tenant's name");
    const polyad::TenantLimits* limits = table.Find(*tenant);
    POLYAD_CHECK(limits != nullptr, "a key's tenant is there");
    CheckLimits(*limits);
  }
  POLYAD_CHECK(found == 0 || table.num_keys() > 0, "a key that was found is counted");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto table = polyad::TenantTable::Parse(text);
  if (!table.ok()) {
    const std::string message(table.status().message());
    for (size_t at = 0; at + kDigestChars <= message.size(); ++at) {
      POLYAD_CHECK(!polyad::DigestFromHex(std::string_view(message).substr(at, kDigestChars)),
                   "no digest in a message");
    }
    return 0;
  }
  POLYAD_CHECK(table->num_tenants() > 0, "a table of somebody");
  CheckKeys(*table, text);
  return 0;
}
