#pragma once

// TLS for a gRPC port whose certificate may be renewed: every handshake asks the store what is in
// force, through gRPC's fetcher of server configurations (grpc/grpc_security.h). gRPC 1.51's own
// watcher of files would take a certificate that does not fit its key, and serve nobody from then
// on; the store holds only what has been checked. TLS 1.2 at least and ALPN h2 are gRPC's defaults.

#include <grpcpp/security/server_credentials.h>

#include <memory>

#include "server/tls/tls_store.h"

namespace polyad {

// For one port. `store` outlives the server.
std::shared_ptr<grpc::ServerCredentials> MakeGrpcTls(const TlsStore& store);

}  // namespace polyad
