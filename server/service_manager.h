#pragma once

// What a service manager such as systemd is told of the server, in its own protocol (sd_notify(3)):
// datagrams to the socket that $NOTIFY_SOCKET names. READY=1 once it serves, STOPPING=1 when it
// drains, WATCHDOG=1 as often as half of $WATCHDOG_USEC while its engine steps. Where there is
// no such variable, or nobody at the socket, nothing is sent and nothing is wrong. One thread.

#include <cstdint>
#include <string>
#include <string_view>

#include "server/config.h"

namespace polyad {

struct Serving;

class ServiceManager {
 public:
  // $WATCHDOG_PID, where it is set, has to be `pid` for the watchdog to be ours.
  ServiceManager(const EnvironmentLookup& environment, int64_t pid);

  void Ready();
  void Stopping();
  // Asked a few times a second; tells nobody while the engine does not step (watchdog.h).
  void FeedWatchdog(const Serving& serving, int64_t now_ms);

  int64_t watchdog_ms() const { return watchdog_ms_; }  // 0: none is asked for

 private:
  void Send(std::string_view message) const;

  std::string socket_;  // empty: nobody is told; "@" for the abstract namespace
  int64_t watchdog_ms_ = 0;
  int64_t next_alive_ms_ = 0;
};

}  // namespace polyad
