#pragma once

// Asks a server whether it is ready, as `polyad probe` does: GET /ready or /health over HTTP, or
// gRPC's own health service (grpc.health.v1). Each call makes one connection and closes it, and
// ends within `timeout_ms`, but for a name's resolution, which takes what the resolver takes. It
// sends no credentials. Any thread.
//
// Errors: UNAVAILABLE says that nothing listens there, or what it answered; INVALID_ARGUMENT a file
// that cannot be used.

#include <cstdint>
#include <string>

#include "engine/base/status.h"

namespace polyad {

struct ProbeTarget {
  std::string host;  // a name or an IP address, without brackets
  int port = 0;
  std::string path = "/ready";  // of HTTP
  std::string service;          // of gRPC; empty: the server as a whole
  int64_t timeout_ms = 3000;

  bool tls = false;
  std::string ca_file;           // PEM; empty: any certificate will do, as kubelet has it
  std::string server_name;       // that it has to be for, with ca_file; empty: host
  std::string client_cert_file;  // PEM, both or neither
  std::string client_key_file;
};

Status ProbeHttp(const ProbeTarget& target);
Status ProbeGrpc(const ProbeTarget& target);
// TLS 1.3 as far as the server's certificate: all that can be asked of one that wants the client's
// where there is none to show.
Status ProbeHandshake(const ProbeTarget& target);

}  // namespace polyad
