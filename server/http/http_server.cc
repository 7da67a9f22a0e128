#include "server/http/http_server.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <utility>

namespace polyad {
namespace {

constexpr size_t kReadBytes = 16 << 10;
constexpr int kSweepMs = 500;
constexpr size_t kMaxQueuedRequests = 1024;

std::string ErrorBody(int status, const std::string& text) {
  // `text` is one of the parser's own: nothing in it needs escaping.
  return R"({"error":{"message":")" + text + R"(","type":"invalid_request_error","param":null,)" +
         R"("code":)" + std::to_string(status) + "}}";
}

}  // namespace

HttpServer::HttpServer(Options options, Clock& clock, Handler handler)
    : options_(std::move(options)), clock_(clock), handler_(std::move(handler)) {}

StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(Options options, Clock& clock,
                                                        Handler handler) {
  std::unique_ptr<HttpServer> server(new HttpServer(std::move(options), clock, std::move(handler)));
  POLYAD_RETURN_IF_ERROR(server->Listen());
  server->workers_ = std::make_unique<WorkerPool>(server->options_.num_workers, kMaxQueuedRequests);
  server->thread_ = std::thread([raw = server.get()] { raw->Run(); });
  return server;
}

HttpServer::~HttpServer() {
  stop_.store(true);
  if (thread_.joinable()) {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(wake_fd_, &one, sizeof(one));
    thread_.join();
  }
  workers_.reset();  // handlers under way may still answer: their connections are closed, not gone
  for (const auto& [fd, connection] : connections_) connection->Close();
  connections_.clear();
  for (int fd : {listen_fd_, wake_fd_, epoll_fd_}) {
    if (fd >= 0) ::close(fd);
  }
}

bool HttpServer::Finish(int64_t wait_ms) {
  constexpr std::chrono::milliseconds kLook{2};
  ::epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, listen_fd_, nullptr);
  ::shutdown(listen_fd_, SHUT_RD);  // whoever is not accepted yet hears of it now
  const int64_t until_ms = clock_.NowMillis() + wait_ms;
  while (num_answering_.load() > 0) {
    if (clock_.NowMillis() >= until_ms) return false;
    std::this_thread::sleep_for(kLook);
  }
  return true;
}

void HttpServer::Run() {
  epoll_event events[64];
  int64_t swept_ms = clock_.NowMillis();
  while (!stop_.load()) {
    const bool busy = !connections_.empty() || !accepting_;
    const int count = ::epoll_wait(epoll_fd_, events, 64, busy ? kSweepMs : -1);
    for (int i = 0; i < count; ++i) {
      const int fd = events[i].data.fd;
      if (fd == listen_fd_) {
        Accept();
      } else if (const auto found = connections_.find(fd); found != connections_.end()) {
        OnEvent(Connection(found->second), events[i].events);
      }
    }
    if (clock_.NowMillis() - swept_ms < kSweepMs) continue;
    swept_ms = clock_.NowMillis();
    Sweep();
  }
}

void HttpServer::Accept() {
  for (int i = 0; i < 64; ++i) {
    const int fd = ::accept4(listen_fd_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
      // Out of descriptors: rest until the next sweep instead of spinning.
      if (errno == EMFILE || errno == ENFILE || errno == ENOMEM) WatchListener(false);
      return;
    }
    if (connections_.size() >= options_.limits.max_connections) {
      ::close(fd);
      continue;
    }
    const int one = 1;
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    std::unique_ptr<TlsSession> tls;
    if (options_.tls != nullptr) {
      tls = TlsSession::Begin(options_.tls->current().material, fd);
      if (tls == nullptr) {
        ::close(fd);
        continue;
      }
    }
    auto connection = std::make_shared<HttpConnection>(fd, epoll_fd_, options_.limits,
                                                       clock_.NowMillis(), std::move(tls));
    epoll_event event{};
    event.events = EPOLLIN | EPOLLRDHUP;
    event.data.fd = fd;
    if (::epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, fd, &event) != 0) continue;  // closes with the object
    connections_.emplace(fd, std::move(connection));
    num_connections_.store(static_cast<int64_t>(connections_.size()), std::memory_order_relaxed);
  }
}

void HttpServer::WatchListener(bool on) {
  accepting_ = on;
  epoll_event event{};
  if (on) event.events = EPOLLIN;
  event.data.fd = listen_fd_;
  ::epoll_ctl(epoll_fd_, EPOLL_CTL_MOD, listen_fd_, &event);
}

void HttpServer::OnEvent(const Connection& connection, uint32_t events) {
  using Phase = HttpConnection::Phase;
  const Phase phase = connection->phase();
  if (phase == Phase::kHandshaking) {
    ShakeHands(connection);
    return;
  }
  if (phase == Phase::kReading) {
    // A "100 Continue" may be waiting while the request goes on arriving.
    if (connection->Flush(clock_.NowMillis())) {
      ReadSome(connection);
    } else {
      Drop(connection);
    }
    return;
  }
  if (phase == Phase::kLingering) {
    DiscardInput(connection);
    return;
  }
  if ((events & (EPOLLHUP | EPOLLERR)) != 0 ||
      ((events & EPOLLRDHUP) != 0 && phase == Phase::kHandling)) {
    Drop(connection);  // nobody reads the answer any more
    return;
  }
  if (!connection->Flush(clock_.NowMillis())) {
    Drop(connection);
  } else if (connection->phase() == Phase::kFinished && connection->drained()) {
    AfterResponse(connection);
  }
}

void HttpServer::ShakeHands(const Connection& connection) {
  // Lingering lets the client read the alert that says why.
  if (!connection->Handshake(clock_.NowMillis())) connection->BeginLingering(clock_.NowMillis());
}

void HttpServer::ReadSome(const Connection& connection) {
  char bytes[kReadBytes];
  HttpParser& parser = connection->parser();
  const size_t before = parser.buffered_bytes();
  bool more = true;
  while (more) {
    size_t n = 0;
    if (!connection->Receive(bytes, sizeof(bytes), n)) {
      Drop(connection);
      return;
    }
    if (n == 0) break;
    if (parser.idle()) connection->NoteProgress(clock_.NowMillis());
    parser.Append({bytes, n});
    reading_bytes_ += static_cast<int64_t>(n);
    more = connection->has_read_ahead();  // what is left of one record; epoll cannot see it
  }
  if (parser.buffered_bytes() == before) return;
  const auto step = [](size_t count) { return count / (size_t{64} << 10); };
  if (step(before) != step(parser.buffered_bytes())) {
    connection->NoteProgress(clock_.NowMillis());
  }
  Advance(connection);
}

void HttpServer::Advance(const Connection& connection) {
  HttpParser& parser = connection->parser();
  const auto result = parser.Parse();
  if (result == HttpParser::Result::kError) {
    RefuseAndClose(connection, parser.error_status(), parser.error_text());
    return;
  }
  if (result == HttpParser::Result::kDone) {
    Dispatch(connection);
    return;
  }
  const int64_t held = reading_bytes_ + handling_bytes_.load(std::memory_order_relaxed);
  if (held > static_cast<int64_t>(options_.limits.max_buffered_bytes)) {
    RefuseAndClose(connection, 503, "the server holds too many requests, try again later");
    return;
  }
  if (parser.TakeContinue()) {
    connection->Send("HTTP/1.1 100 Continue\r\n\r\n", options_.limits.max_stream_bytes);
  }
}

void HttpServer::Dispatch(const Connection& connection) {
  HttpParser& parser = connection->parser();
  const auto bytes = static_cast<int64_t>(parser.request().body.size());
  connection->BeginHandling();
  ++num_answering_;
  handling_bytes_.fetch_add(bytes, std::memory_order_relaxed);
  auto exchange = std::make_shared<HttpExchange>(connection, std::move(parser.request()),
                                                 options_.limits.max_stream_bytes);
  const bool queued = workers_->TryRun([this, exchange, bytes] {
    handler_(exchange);
    handling_bytes_.fetch_sub(bytes, std::memory_order_relaxed);
  });
  if (!queued) {
    handling_bytes_.fetch_sub(bytes, std::memory_order_relaxed);
    exchange->Respond(503, "application/json", ErrorBody(503, "the server is overloaded"),
                      {{"Retry-After", "1"}});
  }
}

void HttpServer::AfterResponse(const Connection& connection) {
  --num_answering_;
  if (!connection->keep_alive()) {
    connection->BeginLingering(clock_.NowMillis());
    return;
  }
  connection->parser().Next();
  connection->BeginReading(clock_.NowMillis());
  Advance(connection);  // a pipelined request may be here already
}

void HttpServer::RefuseAndClose(const Connection& connection, int status, const std::string& text) {
  const std::string body = ErrorBody(status, text);
  connection->Send(
      HttpHead(status, "application/json", static_cast<int64_t>(body.size()), false, {}) + body,
      options_.limits.max_stream_bytes);
  connection->BeginLingering(clock_.NowMillis());
}

// The client may still be sending: reading on lets it see our answer before the connection ends.
void HttpServer::DiscardInput(const Connection& connection) {
  char bytes[kReadBytes];
  const ssize_t n = ::recv(connection->fd(), bytes, sizeof(bytes), 0);
  if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) Drop(connection);
}

void HttpServer::Sweep() {
  if (!accepting_) WatchListener(true);
  const int64_t now_ms = clock_.NowMillis();
  std::vector<Connection> late;
  reading_bytes_ = 0;
  for (const auto& [fd, connection] : connections_) {
    using Phase = HttpConnection::Phase;
    const Phase phase = connection->phase();
    if (phase == Phase::kReading) {
      reading_bytes_ += static_cast<int64_t>(connection->parser().buffered_bytes());
    } else if (phase == Phase::kHandling && connection->drained()) {
      connection->NoteProgress(now_ms);
    }
    if (connection->TimedOut(now_ms)) late.push_back(connection);
  }
  for (const Connection& connection : late) {
    if (connection->phase() == HttpConnection::Phase::kReading && !connection->parser().idle()) {
      RefuseAndClose(connection, 408, "the request took too long to arrive");
    } else {
      Drop(connection);
    }
  }
}

void HttpServer::Drop(const Connection& connection) {
  const int fd = connection->fd();
  const Connection keep = connection;
  const HttpConnection::Phase phase = connection->phase();
  const bool answering =
      phase == HttpConnection::Phase::kHandling || phase == HttpConnection::Phase::kFinished;
  if (answering) --num_answering_;
  connections_.erase(fd);  // before the descriptor can be used again
  keep->Close();
  num_connections_.store(static_cast<int64_t>(connections_.size()), std::memory_order_relaxed);
}

}  // namespace polyad
