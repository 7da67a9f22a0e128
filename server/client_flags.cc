#include "server/client_flags.h"

#include <utility>

#include "server/field_error.h"
#include "server/http/http_server.h"

namespace polyad {

Status TakeTlsFlags(OwnFlags& flags, ProbeTarget& target) {
  target.ca_file = flags.Take("ca").value_or("");
  target.tls = flags.TakeSwitch("tls") || !target.ca_file.empty();
  target.server_name = flags.Take("server-name").value_or("");
  target.client_cert_file = flags.Take("client-cert").value_or("");
  target.client_key_file = flags.Take("client-key").value_or("");
  if (target.client_cert_file.empty() != target.client_key_file.empty()) {
    return FieldError("client-key", "it and client-cert, or neither", "one of them");
  }
  return absl::OkStatus();
}

Status SetAddress(const std::string& address, ProbeTarget& target) {
  using HostPort = std::pair<std::string, int>;
  POLYAD_ASSIGN_OR_RETURN(const HostPort parsed, ParseListenAddress(address));
  const auto& [host, port] = parsed;
  if (port == 0) return FieldError("address", "a port", address);
  target.host = host;
  if (host == "0.0.0.0" || host.empty()) target.host = "127.0.0.1";
  if (host == "::") target.host = "::1";
  target.port = port;
  return absl::OkStatus();
}

}  // namespace polyad
