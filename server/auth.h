#pragma once

// Who is calling, and may they. Keys and tokens are held as SHA-256 only; a presented one is hashed
// and compared with every entry in constant time, so neither a prefix nor the position of a match
// shows. A caller without either is whom its certificate says, in the same way. Without a tenants
// file every caller is the tenant "", on whichever listener the configuration allows; without an
// admin token the admin routes are open to this machine and to nobody else. The table may be
// replaced while others ask it: thread-safe. Errors: UNAUTHENTICATED no or unknown key or
// certificate; PERMISSION_DENIED a known one where another kind is needed, or an admin route beyond
// this machine that nothing guards.

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "engine/base/digest.h"
#include "engine/base/status.h"
#include "server/access.h"
#include "server/tenants.h"
#include "server/tls/peer_identity.h"

namespace polyad {

// All that is known of callers at one time.
struct CredentialTable {
  TenantTable tenants;  // empty: no key is asked for
  std::optional<Digest> admin;
  std::optional<Digest> metrics;

  // The tenants file's text, or nothing; tokens, or nothing, with space around them.
  static StatusOr<CredentialTable> Parse(std::string_view tenants_json,
                                         std::string_view admin_token,
                                         std::string_view metrics_token = {});
};

// From where a listener's callers may come.
enum class Reach { kBeyond, kThisMachine };

class Credentials {
 public:
  explicit Credentials(CredentialTable table);

  // Requests that are already under way go on.
  void Replace(CredentialTable table);

  // Whether `authorization`, the header's value ("Bearer <key>" or empty), opens what asks for
  // `access` on a listener of that reach; where it is empty, whether `peer` does, the names of a
  // certificate that the handshake has verified, or null. -> the tenant, where that is a tenant's.
  StatusOr<std::string> Authorize(Access access, Reach reach, std::string_view authorization,
                                  const PeerIdentity* peer = nullptr) const;
  // UNAUTHENTICATED where the tenant has gone in the meantime.
  StatusOr<TenantLimits> LimitsOf(std::string_view tenant) const;

 private:
  std::shared_ptr<const CredentialTable> table() const;

  mutable std::mutex mutex_;
  std::shared_ptr<const CredentialTable> table_;  // guarded by mutex_
};

// Whether the host of "HOST:PORT" is this machine alone: 127.*, ::1 or localhost.
bool IsLoopback(std::string_view host);
// Of a listener at "HOST:PORT"; beyond where that is no such text.
Reach ReachOf(const std::string& listen);

}  // namespace polyad
