#pragma once

// One gRPC listener with every limit set: message size, metadata, streams per connection, pings,
// handshakes, a connection's age and idleness. With
// TLS, each handshake begins with what the store has then. Health (grpc.health.v1) is on,
// reflection where it is asked for. Owned by main; Stop waits for calls under way until its
// deadline.

#include <cstdint>
#include <memory>
#include <string>

#include "engine/base/status.h"
#include "server/tls/tls_store.h"

namespace grpc {
class Server;
class ServerCredentials;
class Service;
}  // namespace grpc

namespace polyad {

struct GrpcLimits {
  int max_message_bytes = (4 << 20) + (64 << 10);  // the largest prompt and what goes with it
  int max_metadata_bytes = 16 << 10;
  int max_streams = 100;      // per connection
  int keepalive_ms = 60'000;  // the server's own pings
  int min_ping_ms = 10'000;   // a client's; two sooner ones end the connection
  int handshake_timeout_ms = 5'000;
  int max_age_ms = 3'600'000;  // of a connection: then it takes no more calls; 0: any
  int age_grace_ms = 600'000;  // for calls under way from then on
  int max_idle_ms = 300'000;   // of a connection without a call; 0: any
  bool has_reflection = true;  // tells anyone which services and messages there are
};

class GrpcServer {
 public:
  // `listen` is HOST:PORT, port 0 takes a free one. `service`, whose name is `service_name`, must
  // outlive the server, as `tls` must; without it the port is plain. FAILED_PRECONDITION where a
  // method of the service is not in the table of access.
  static StatusOr<std::unique_ptr<GrpcServer>> Start(const std::string& listen,
                                                     const std::string& service_name,
                                                     grpc::Service& service,
                                                     const GrpcLimits& limits,
                                                     const TlsStore* tls = nullptr);
  ~GrpcServer();

  const std::string& address() const { return address_; }  // HOST:PORT as bound
  void SetServing(bool serving);                           // what health says
  void Stop(int64_t wait_ms);
  grpc::Server& server() { return *server_; }

 private:
  GrpcServer();
  std::shared_ptr<grpc::ServerCredentials> credentials_;  // asked until the server has gone
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
};

}  // namespace polyad
