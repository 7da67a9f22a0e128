#include "server/auth.h"
#include "server/http/http_server.h"

// What the configuration asks of addresses, apart from sockets and credentials.

namespace polyad {

StatusOr<std::pair<std::string, int>> ParseListenAddress(const std::string& listen) {
  const size_t colon = listen.rfind(':');
  const std::string port = colon == std::string::npos ? "" : listen.substr(colon + 1);
  if (colon == 0 || port.empty() || port.size() > 5 ||
      port.find_first_not_of("0123456789") != std::string::npos || std::stoi(port) > 65535) {
    return InvalidArgument("listen address: expected HOST:PORT, got '%s'", listen);
  }
  std::string host = listen.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  }
  return std::make_pair(host, std::stoi(port));
}

bool IsLoopback(std::string_view host) {
  if (host == "localhost" || host == "::1" || host == "[::1]") return true;
  if (!host.starts_with("127.") || host.size() > 15) return false;
  return host.find_first_not_of("0123456789.") == std::string_view::npos;
}

Reach ReachOf(const std::string& listen) {
  const auto parsed = ParseListenAddress(listen);
  return parsed.ok() && IsLoopback(parsed->first) ? Reach::kThisMachine : Reach::kBeyond;
}

}  // namespace polyad
