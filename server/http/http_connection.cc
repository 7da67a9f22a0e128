#include "server/http/http_connection.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace polyad {
namespace {

constexpr int64_t kLingerMs = 1'000;
constexpr std::string_view kNotTls =
    "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 40\r\n"
    "Connection: close\r\n\r\nthis port speaks HTTPS: use https://...\n";

}  // namespace

HttpConnection::HttpConnection(int fd, int epoll_fd, const HttpLimits& limits, int64_t now_ms,
                               std::unique_ptr<TlsSession> tls)
    : fd_(fd),
      epoll_fd_(epoll_fd),
      limits_(limits),
      parser_(limits),
      progress_ms_(now_ms),
      tls_(std::move(tls)),
      phase_(tls_ == nullptr ? Phase::kReading : Phase::kHandshaking) {}

HttpConnection::~HttpConnection() { Close(); }

bool HttpConnection::Handshake(int64_t now_ms) {
  std::lock_guard<std::mutex> lock(mutex_);
  switch (tls_->Handshake()) {
    case TlsSession::Result::kDone:
      progress_ms_ = now_ms;
      phase_ = Phase::kReading;
      WatchLocked();
      return true;
    case TlsSession::Result::kWantRead:
      EpollLocked(EPOLLIN);  // an end shows as input too
      return true;
    case TlsSession::Result::kWantWrite:
      EpollLocked(EPOLLOUT);
      return true;
    case TlsSession::Result::kClosed:
    case TlsSession::Result::kFailed:
      break;
  }
  if (tls_->plain_http()) {
    ::send(fd_, kNotTls.data(), kNotTls.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  }
  return false;
}

bool HttpConnection::Receive(char* out, size_t size, size_t& num_read) {
  num_read = 0;
  std::lock_guard<std::mutex> lock(mutex_);
  if (tls_ == nullptr) {
    const ssize_t n = ::recv(fd_, out, size, 0);
    if (n > 0) num_read = static_cast<size_t>(n);
    return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
  }
  const TlsSession::Result result = tls_->Read(out, size, num_read);
  return result != TlsSession::Result::kClosed && result != TlsSession::Result::kFailed;
}

bool HttpConnection::has_read_ahead() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return tls_ != nullptr && tls_->has_read_ahead();
}

std::shared_ptr<const PeerIdentity> HttpConnection::peer() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return tls_ == nullptr ? nullptr : tls_->peer();
}

bool HttpConnection::SendTlsLocked(std::string_view bytes, size_t& sent) {
  while (sent < bytes.size()) {
    size_t n = 0;
    switch (tls_->Write(bytes.substr(sent), n)) {
      case TlsSession::Result::kDone:
        sent += n;
        break;
      case TlsSession::Result::kWantRead:
      case TlsSession::Result::kWantWrite:
        return true;
      case TlsSession::Result::kClosed:
      case TlsSession::Result::kFailed:
        ::shutdown(fd_, SHUT_RDWR);  // or the I/O thread would not see that it is over
        return false;
    }
  }
  return true;
}

bool HttpConnection::SendNowLocked(std::string_view bytes, size_t& sent) {
  if (tls_ != nullptr) return SendTlsLocked(bytes, sent);
  while (sent < bytes.size()) {
    const ssize_t n =
        ::send(fd_, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0) {
      sent += static_cast<size_t>(n);
    } else if (n < 0 && errno == EINTR) {
      continue;
    } else {
      return n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
    }
  }
  return true;
}

bool HttpConnection::Send(std::string_view bytes, size_t max_pending) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (phase_ == Phase::kClosed) return false;
  size_t sent = 0;
  if (pending_.empty()) {
    if (!SendNowLocked(bytes, sent)) return false;  // the I/O thread sees the hang-up too
    if (sent == bytes.size()) return true;
  }
  const size_t waiting = pending_.size() - pending_begin_;
  if (waiting + bytes.size() - sent > max_pending) return false;
  const bool first = pending_.empty();
  pending_.append(bytes.substr(sent));
  if (first) WatchLocked();
  return true;
}

void HttpConnection::FinishResponse(bool keep_alive) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (phase_ != Phase::kHandling) return;
  phase_ = Phase::kFinished;
  keep_alive_ = keep_alive;
  on_closed_ = nullptr;
  WatchLocked();  // a writable socket wakes the I/O thread at once
}

void HttpConnection::WatchClose(std::function<void()> closed) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (phase_ != Phase::kClosed) {
      on_closed_ = std::move(closed);
      return;
    }
  }
  closed();
}

void HttpConnection::EpollLocked(uint32_t events) {
  epoll_event event{};
  event.data.fd = fd_;
  event.events = events;
  ::epoll_ctl(epoll_fd_, EPOLL_CTL_MOD, fd_, &event);
}

void HttpConnection::WatchLocked() {
  uint32_t events = EPOLLRDHUP;
  if (phase_ == Phase::kReading) events |= EPOLLIN;
  if (!pending_.empty() || phase_ == Phase::kFinished) events |= EPOLLOUT;
  EpollLocked(events);
}

HttpConnection::Phase HttpConnection::phase() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return phase_;
}

void HttpConnection::BeginHandling() {
  std::lock_guard<std::mutex> lock(mutex_);
  phase_ = Phase::kHandling;
  WatchLocked();
}

void HttpConnection::BeginReading(int64_t now_ms) {
  progress_ms_ = now_ms;
  std::lock_guard<std::mutex> lock(mutex_);
  phase_ = Phase::kReading;
  WatchLocked();
}

void HttpConnection::BeginLingering(int64_t now_ms) {
  progress_ms_ = now_ms;
  std::lock_guard<std::mutex> lock(mutex_);
  phase_ = Phase::kLingering;
  if (tls_ != nullptr && pending_.empty()) tls_->SayGoodbye();
  ::shutdown(fd_, SHUT_WR);
  EpollLocked(EPOLLIN);
}

bool HttpConnection::Flush(int64_t now_ms) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (pending_.empty()) return true;
  size_t sent = pending_begin_;
  const bool alive = SendNowLocked(pending_, sent);
  // Of a request that is still arriving, what the client takes is no progress.
  if (sent > pending_begin_ && phase_ != Phase::kReading) progress_ms_ = now_ms;
  pending_begin_ = sent;
  if (sent == pending_.size()) {
    pending_.clear();
    pending_begin_ = 0;
    if (phase_ == Phase::kHandling || phase_ == Phase::kReading) WatchLocked();
  }
  return alive;
}

bool HttpConnection::drained() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return pending_.empty();
}

bool HttpConnection::keep_alive() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return keep_alive_;
}

void HttpConnection::Close() {
  std::function<void()> closed;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (phase_ == Phase::kClosed) return;
    phase_ = Phase::kClosed;
    ::close(fd_);
    closed = std::exchange(on_closed_, nullptr);
  }
  if (closed) closed();
}

bool HttpConnection::TimedOut(int64_t now_ms) const {
  const int64_t age_ms = now_ms - progress_ms_;
  std::lock_guard<std::mutex> lock(mutex_);
  switch (phase_) {
    case Phase::kHandshaking:
      return age_ms > limits_.handshake_timeout_ms;
    case Phase::kReading:
      return age_ms > (parser_.idle() ? limits_.idle_timeout_ms : limits_.request_timeout_ms);
    case Phase::kHandling:
    case Phase::kFinished:
      return !pending_.empty() && age_ms > limits_.write_timeout_ms;
    case Phase::kLingering:
      return age_ms > kLingerMs;
    case Phase::kClosed:
      return true;
  }
  return true;
}

}  // namespace polyad
