#include "server/service_manager.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstring>

#include "engine/base/log.h"
#include "server/serving.h"

namespace polyad {
namespace {

// -> 0 where it is no number
int64_t NumberOf(const EnvironmentLookup& environment, const char* name) {
  const std::string text = environment(name).value_or("");
  int64_t value = 0;
  const auto read = std::from_chars(text.data(), text.data() + text.size(), value);
  return read.ec == std::errc() && read.ptr == text.data() + text.size() ? value : 0;
}

}  // namespace

ServiceManager::ServiceManager(const EnvironmentLookup& environment, int64_t pid)
    : socket_(environment("NOTIFY_SOCKET").value_or("")) {
  const bool is_address = socket_.size() > 1 && socket_.size() < sizeof(sockaddr_un::sun_path) &&
                          (socket_.front() == '/' || socket_.front() == '@');
  if (!is_address) socket_.clear();
  const bool is_ours =
      !environment("WATCHDOG_PID").has_value() || NumberOf(environment, "WATCHDOG_PID") == pid;
  if (!socket_.empty() && is_ours) {
    watchdog_ms_ = std::max<int64_t>(NumberOf(environment, "WATCHDOG_USEC") / 1000, 0);
  }
}

void ServiceManager::Ready() { Send("READY=1"); }

void ServiceManager::Stopping() { Send("STOPPING=1"); }

void ServiceManager::FeedWatchdog(const Serving& serving, int64_t now_ms) {
  if (watchdog_ms_ == 0 || serving.stalled.load() || now_ms < next_alive_ms_) return;
  next_alive_ms_ = now_ms + watchdog_ms_ / 2;
  Send("WATCHDOG=1");
}

void ServiceManager::Send(std::string_view message) const {
  if (socket_.empty()) return;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, socket_.data(), socket_.size());
  if (socket_.front() == '@') address.sun_path[0] = '\0';
  const auto bytes = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + socket_.size());
  const int descriptor = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  const bool is_sent = descriptor >= 0 && ::sendto(descriptor, message.data(), message.size(),
                                                   MSG_NOSIGNAL | MSG_DONTWAIT,
                                                   reinterpret_cast<const sockaddr*>(&address),
                                                   bytes) == static_cast<ssize_t>(message.size());
  if (descriptor >= 0) ::close(descriptor);
  if (!is_sent)
    Log(LogLevel::kWarning, "service_manager_not_told", {{"message", std::string(message)}});
}

}  // namespace polyad
