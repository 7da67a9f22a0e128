#pragma once

// Who a client's certificate says it is: its DNS and URI subject alternative names, or its common
// name where it has neither (RFC 6125 6.4.4; SPIFFE IDs are URIs). Each name is written as the
// tenants file has it, "dns:<name>" in lower case, "uri:<uri>" or "cn:<name>", and held as SHA-256
// like a key. Says nothing of who signed the certificate: the handshake has checked that. Plain
// values, any thread. Errors: INVALID_ARGUMENT.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/digest.h"
#include "engine/base/status.h"

typedef struct x509_st X509;

namespace polyad {

inline constexpr size_t kMaxIdentityBytes = 512;
inline constexpr size_t kMaxPeerNames = 32;

struct PeerIdentity {
  std::vector<Digest> names;
  int64_t expires_unix_s = 0;  // from then on it is nobody's
};

// The digest of one identity as the tenants file has it.
StatusOr<Digest> IdentityDigest(std::string_view identity);

// A certificate with more than kMaxPeerNames names, or with one that holds a NUL or is longer than
// kMaxIdentityBytes, has none.
PeerIdentity IdentityOf(X509& certificate);
// Of the first certificate of a PEM text; one that cannot be read has no names.
PeerIdentity IdentityOfPem(std::string_view pem);

}  // namespace polyad
