// Whether the polyad of this container is ready: asks GET /ready of its HTTP port, for an image
// without a shell.
//   polyad-probe [HOST:PORT]     0: ready; 1: not
// Without an argument it asks where POLYAD_HTTP_LISTEN says, or 127.0.0.1:8080. Where
// POLYAD_TLS_CERT is set, the port speaks TLS and this knows only plain HTTP: that the port takes
// connections is all that is asked then.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>

namespace {

constexpr timeval kPatience{.tv_sec = 3, .tv_usec = 0};  // for each of connecting, writing, reading

int Fail(const char* what) {
  std::fprintf(stderr, "polyad-probe: %s\n", what);
  return 1;
}

// 127.0.0.1 stands for every address that a listener may have in its own container.
bool PortOf(std::string_view listen, sockaddr_in& address) {
  const size_t colon = listen.rfind(':');
  if (colon == std::string_view::npos) return false;
  const std::string_view digits = listen.substr(colon + 1);
  uint16_t port = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
  if (error != std::errc() || end != digits.data() + digits.size() || port == 0) return false;
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  if (inet_pton(AF_INET, std::string(listen.substr(0, colon)).c_str(), &address.sin_addr) != 1 ||
      address.sin_addr.s_addr == htonl(INADDR_ANY)) {
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  const char* listen = argc > 1 ? argv[1] : std::getenv("POLYAD_HTTP_LISTEN");
  sockaddr_in address{};
  if (!PortOf(listen == nullptr ? "127.0.0.1:8080" : listen, address))
    return Fail("expected HOST:PORT");
  const int socket_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (socket_fd < 0) return Fail("no socket");
  setsockopt(socket_fd, SOL_SOCKET, SO_RCVTIMEO, &kPatience, sizeof(kPatience));
  setsockopt(socket_fd, SOL_SOCKET, SO_SNDTIMEO, &kPatience, sizeof(kPatience));
  if (connect(socket_fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    return Fail("nothing listens");
  }
  if (argc == 1 && std::getenv("POLYAD_TLS_CERT") != nullptr) return 0;
  constexpr std::string_view kRequest =
      "GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
  if (write(socket_fd, kRequest.data(), kRequest.size()) != static_cast<ssize_t>(kRequest.size())) {
    return Fail("not written");
  }
  constexpr std::string_view kReady = "HTTP/1.1 200 ";
  char answer[kReady.size()];
  size_t size = 0;
  while (size < sizeof(answer)) {
    const ssize_t count = read(socket_fd, answer + size, sizeof(answer) - size);
    if (count <= 0) return Fail("no answer");
    size += static_cast<size_t>(count);
  }
  return std::string_view(answer, size) == kReady ? 0 : Fail("not ready");
}
