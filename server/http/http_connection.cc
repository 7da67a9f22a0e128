#include "server/http/http_connection.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace polyad {
namespace {

constexpr int64_t kLingerMs = 1'000;

}  // namespace

HttpConnection::HttpConnection(int fd, int epoll_fd, const HttpLimits& limits, int64_t now_ms)
    : fd_(fd), epoll_fd_(epoll_fd), limits_(limits), parser_(limits), progress_ms_(now_ms) {}

HttpConnection::~HttpConnection() { Close(); }

bool HttpConnection::SendNowLocked(std::string_view bytes, size_t& sent) {
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
  if (first) WatchLocked(false);
  return true;
}

void HttpConnection::FinishResponse(bool keep_alive) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (phase_ != Phase::kHandling) return;
  phase_ = Phase::kFinished;
  keep_alive_ = keep_alive;
  on_closed_ = nullptr;
  WatchLocked(false);  // a writable socket wakes the I/O thread at once
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

void HttpConnection::WatchLocked(bool input) {
  epoll_event event{};
  event.data.fd = fd_;
  event.events = EPOLLRDHUP;
  if (input) event.events |= EPOLLIN;
  if (!pending_.empty() || phase_ == Phase::kFinished) event.events |= EPOLLOUT;
  ::epoll_ctl(epoll_fd_, EPOLL_CTL_MOD, fd_, &event);
}

HttpConnection::Phase HttpConnection::phase() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return phase_;
}

void HttpConnection::BeginHandling() {
  std::lock_guard<std::mutex> lock(mutex_);
  phase_ = Phase::kHandling;
  WatchLocked(false);
}

void HttpConnection::BeginReading(int64_t now_ms) {
  progress_ms_ = now_ms;
  std::lock_guard<std::mutex> lock(mutex_);
  phase_ = Phase::kReading;
  WatchLocked(true);
}

void HttpConnection::BeginLingering(int64_t now_ms) {
  progress_ms_ = now_ms;
  std::lock_guard<std::mutex> lock(mutex_);
  phase_ = Phase::kLingering;
  ::shutdown(fd_, SHUT_WR);
  epoll_event event{};
  event.data.fd = fd_;
  event.events = EPOLLIN;
  ::epoll_ctl(epoll_fd_, EPOLL_CTL_MOD, fd_, &event);
}

bool HttpConnection::Flush(int64_t now_ms) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (pending_.empty()) return true;
  size_t sent = pending_begin_;
  const bool alive = SendNowLocked(pending_, sent);
  if (sent > pending_begin_) progress_ms_ = now_ms;
  pending_begin_ = sent;
  if (sent == pending_.size()) {
    pending_.clear();
    pending_begin_ = 0;
    if (phase_ == Phase::kHandling) WatchLocked(false);
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
