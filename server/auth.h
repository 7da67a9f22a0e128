#pragma once

// Who is calling. Keys are held as SHA-256 only; a presented key is hashed and compared with every
// entry in constant time, so neither a prefix nor the position of a match shows. Immutable after
// loading, any thread. Without a key file every caller is the tenant ""; without an admin token the
// admin routes are open, which main allows on loopback only. Errors: UNAUTHENTICATED no or unknown
// key; PERMISSION_DENIED a tenant's key where the admin token is needed.

#include <string>
#include <string_view>
#include <vector>

#include "engine/base/digest.h"
#include "engine/base/status.h"

namespace polyad {

class Credentials {
 public:
  // Key file: lines "tenant:hex SHA-256 of the key", "#" comments. Token file: the token, alone.
  // Empty paths: none.
  static StatusOr<Credentials> Load(const std::string& api_keys_file,
                                    const std::string& admin_token_file);
  static StatusOr<Credentials> Parse(std::string_view api_keys, std::string_view admin_token);

  bool has_tenants() const { return !keys_.empty(); }
  bool has_admin() const { return has_admin_; }

  // `authorization` is the header's value, "Bearer <key>", or empty.
  StatusOr<std::string> Tenant(std::string_view authorization) const;
  Status CheckAdmin(std::string_view authorization) const;

 private:
  struct Key {
    std::string tenant;
    Digest digest;
  };
  const Key* FindKey(const Digest& digest) const;

  std::vector<Key> keys_;
  Digest admin_{};
  bool has_admin_ = false;
};

// Whether the host of "HOST:PORT" is this machine alone: 127.*, ::1 or localhost.
bool IsLoopback(std::string_view host);

}  // namespace polyad
