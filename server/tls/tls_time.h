#pragma once

// Times of certificates (ASN.1, RFC 5280 4.1.2.5) as seconds since 1970, UTC. Any thread.

#include <openssl/asn1.h>

#include <cstdint>

namespace polyad {

// 0 for what is no time: such a certificate has always been over.
inline int64_t UnixSecondsOf(const ASN1_TIME& time) {
  struct tm parts {};
  if (ASN1_TIME_to_tm(&time, &parts) != 1) return 0;
  return static_cast<int64_t>(timegm(&parts));
}

}  // namespace polyad
