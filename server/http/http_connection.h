#pragma once

// One client's socket. The I/O thread reads, parses and closes; any thread may send, which goes
// straight to the socket where it has room (a token costs one system call and no thread switch) and
// otherwise waits in a bounded buffer for the I/O thread. With TLS the same bytes pass through its
// session, under the same lock. Held by shared_ptr: a stream whose client has left keeps the
// object, not the descriptor.

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "server/http/http_parser.h"
#include "server/tls/tls_session.h"

namespace polyad {

class HttpConnection : public std::enable_shared_from_this<HttpConnection> {
 public:
  // Takes over `fd`, which is registered with `epoll_fd` by the caller. Without `tls` the bytes are
  // plain.
  HttpConnection(int fd, int epoll_fd, const HttpLimits& limits, int64_t now_ms,
                 std::unique_ptr<TlsSession> tls);
  ~HttpConnection();
  HttpConnection(const HttpConnection&) = delete;
  HttpConnection& operator=(const HttpConnection&) = delete;

  // Any thread. False once the client has left, or where `max_pending` bytes would be passed.
  bool Send(std::string_view bytes, size_t max_pending);
  // Any thread. The response is complete: go on with the next request, or close.
  void FinishResponse(bool keep_alive);
  // Any thread. `closed` runs on the I/O thread if the client leaves before FinishResponse; at once
  // if it has.
  void WatchClose(std::function<void()> closed);
  // Who the client's certificate says it is; null where it showed none.
  std::shared_ptr<const PeerIdentity> peer() const;

  // The I/O thread only, from here on.
  enum class Phase { kHandshaking, kReading, kHandling, kFinished, kLingering, kClosed };
  Phase phase() const;
  // The next step of the handshake; the phase says whether it was the last. False: it failed.
  bool Handshake(int64_t now_ms);
  // False once the client has left. Nothing may have come all the same: `num_read` is 0.
  bool Receive(char* out, size_t size, size_t& num_read);
  bool has_read_ahead() const;  // Receive has more without waiting for the socket
  void BeginHandling();         // stop reading until the response is complete
  void BeginReading(int64_t now_ms);
  void BeginLingering(int64_t now_ms);  // our side is closed; wait for the client's
  bool Flush(int64_t now_ms);           // false: the socket is broken
  bool drained() const;
  bool keep_alive() const;
  void Close();
  bool TimedOut(int64_t now_ms) const;
  void NoteProgress(int64_t now_ms) { progress_ms_ = now_ms; }

  int fd() const { return fd_; }
  HttpParser& parser() { return parser_; }

 private:
  void WatchLocked();  // tells epoll what we wait for in this phase
  bool SendNowLocked(std::string_view bytes, size_t& sent);
  bool SendTlsLocked(std::string_view bytes, size_t& sent);
  void EpollLocked(uint32_t events);

  const int fd_;
  const int epoll_fd_;
  const HttpLimits limits_;
  HttpParser parser_;
  int64_t progress_ms_ = 0;  // I/O thread

  mutable std::mutex mutex_;
  const std::unique_ptr<TlsSession> tls_;  // guarded by mutex_; null: plain
  Phase phase_;
  std::string pending_;
  size_t pending_begin_ = 0;
  bool keep_alive_ = true;
  std::function<void()> on_closed_;
};

}  // namespace polyad
