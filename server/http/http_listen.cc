#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "server/http/http_server.h"

// Binding, apart from serving.

namespace polyad {
namespace {

constexpr int kBacklog = 512;

struct Address {
  sockaddr_storage storage{};
  socklen_t length = 0;
};

StatusOr<Address> MakeAddress(const std::string& host, int port, const std::string& listen) {
  Address out;
  auto* v4 = reinterpret_cast<sockaddr_in*>(&out.storage);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&out.storage);
  const std::string numeric = host == "localhost" ? "127.0.0.1" : host;
  if (::inet_pton(AF_INET, numeric.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(static_cast<uint16_t>(port));
    out.length = sizeof(sockaddr_in);
    return out;
  }
  if (::inet_pton(AF_INET6, numeric.c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(static_cast<uint16_t>(port));
    out.length = sizeof(sockaddr_in6);
    return out;
  }
  return InvalidArgument("listen address '%s': expected an IP address or localhost", listen);
}

int BoundPort(int fd) {
  Address bound;
  bound.length = sizeof(bound.storage);
  ::getsockname(fd, reinterpret_cast<sockaddr*>(&bound.storage), &bound.length);
  return ntohs(bound.storage.ss_family == AF_INET
                   ? reinterpret_cast<sockaddr_in*>(&bound.storage)->sin_port
                   : reinterpret_cast<sockaddr_in6*>(&bound.storage)->sin6_port);
}

}  // namespace

Status HttpServer::Listen() {
  using HostPort = std::pair<std::string, int>;
  POLYAD_ASSIGN_OR_RETURN(const HostPort host_port, ParseListenAddress(options_.listen));
  POLYAD_ASSIGN_OR_RETURN(const Address address,
                          MakeAddress(host_port.first, host_port.second, options_.listen));
  listen_fd_ = ::socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  epoll_fd_ = ::epoll_create1(EPOLL_CLOEXEC);
  wake_fd_ = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  const int one = 1;
  ::setsockopt(listen_fd_, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
  if (::bind(listen_fd_, reinterpret_cast<const sockaddr*>(&address.storage), address.length) !=
          0 ||
      ::listen(listen_fd_, kBacklog) != 0) {
    return Unavailable("listen address %s: %s", options_.listen, std::strerror(errno));
  }
  for (int fd : {listen_fd_, wake_fd_}) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    if (::epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, fd, &event) != 0) {
      return Internal("listen address %s: %s", options_.listen, std::strerror(errno));
    }
  }
  const size_t colon = options_.listen.rfind(':');
  address_ = options_.listen.substr(0, colon) + ":" + std::to_string(BoundPort(listen_fd_));
  return absl::OkStatus();
}

}  // namespace polyad
