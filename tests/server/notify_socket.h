#pragma once

// A service manager's end of sd_notify(3), for tests: a bound datagram socket. One thread.

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

namespace polyad {

class NotifySocket {
 public:
  // "@name": in the abstract namespace.
  explicit NotifySocket(std::string path = "")
      : path_(path.empty() ? testing::TempDir() + "notify-" + std::to_string(::getpid())
                           : std::move(path)),
        descriptor_(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path_.data(), path_.size());
    if (path_.front() == '@') address.sun_path[0] = '\0';
    const auto bytes = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path_.size());
    is_bound_ = ::bind(descriptor_, reinterpret_cast<const sockaddr*>(&address), bytes) == 0;
  }
  ~NotifySocket() {
    ::close(descriptor_);
    if (path_.front() == '/') std::filesystem::remove(path_);
  }
  NotifySocket(const NotifySocket&) = delete;
  NotifySocket& operator=(const NotifySocket&) = delete;

  const std::string& path() const { return path_; }
  // What has come since the last call; never waits.
  std::vector<std::string> Take() const {
    std::vector<std::string> messages;
    char text[256];
    for (ssize_t size = 0; is_bound_ && (size = ::recv(descriptor_, text, sizeof(text), 0)) > 0;) {
      messages.emplace_back(text, static_cast<size_t>(size));
    }
    return messages;
  }

 private:
  const std::string path_;
  const int descriptor_;
  bool is_bound_ = false;
};

}  // namespace polyad
