#pragma once

// Who may call what: one table of every HTTP route and every RPC, which both fronts consult. What
// is not in it is refused, and a front with a route or a method that is not in it does not start.
// Immutable, any thread.

#include <optional>
#include <string_view>
#include <vector>

#include "engine/base/status.h"

namespace polyad {

enum class Access {
  kPublic,   // anyone
  kTenant,   // a tenant's key, where tenants are configured
  kMetrics,  // the metrics token or the admin token, where either is configured
  kAdmin,    // the admin token, where one is configured
};

// The method of every RPC, beside HTTP's.
inline constexpr std::string_view kRpc = "RPC";

struct AccessRule {
  std::string_view method;
  std::string_view path;  // "/v1/models", "/polyad.v1.InferenceService/Generate"
  Access access;
};
const std::vector<AccessRule>& AccessRules();

std::optional<Access> FindAccess(std::string_view method, std::string_view path);
// FAILED_PRECONDITION where the table has no such rule.
Status CheckListed(std::string_view method, std::string_view path);

}  // namespace polyad
