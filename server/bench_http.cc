#include <netdb.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <queue>
#include <unordered_map>

#include "absl/strings/str_cat.h"
#include "server/bench_load.h"
#include "server/http/http_answer.h"
#include "server/json_text.h"

namespace polyad {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kReadBytes = 65536;
constexpr size_t kPausedReadBytes = 1024;  // of a slow reader, whose socket holds little as well
constexpr int kPausedSocketBytes = 4096;

struct Address {
  sockaddr_storage socket{};
  socklen_t size = 0;
};

StatusOr<Address> Resolve(const std::string& target) {
  const size_t colon = target.rfind(':');
  if (colon == std::string::npos) {
    return InvalidArgument("target: expected http://host:port, got http://%s", target);
  }
  std::string host = target.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int error = ::getaddrinfo(host.c_str(), target.c_str() + colon + 1, &hints, &found);
  if (error != 0) return InvalidArgument("target: http://%s: %s", target, ::gai_strerror(error));
  Address out;
  std::memcpy(&out.socket, found->ai_addr, found->ai_addrlen);
  out.size = found->ai_addrlen;
  ::freeaddrinfo(found);
  return out;
}

// As many descriptors as the system lets us have: an open loop's requests are open at once.
void RaiseDescriptorLimit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

// llama-server's way of choosing an adapter; its cache of prompts off, as in every comparison.
void AppendLlamaLoras(const std::vector<std::string>& loras, const std::string& model,
                      std::string& body) {
  body += ",\"cache_prompt\":false,\"lora\":[";
  const auto found = std::find(loras.begin(), loras.end(), model);
  if (found != loras.end()) {
    absl::StrAppend(&body, "{\"id\":", found - loras.begin(), ",\"scale\":1.0}");
  }
  body += ']';
}

std::string MakeHttpRequest(const BenchLoad& load, const BenchRequest& request,
                            std::mt19937_64& random) {
  std::string body = "{\"model\":";
  AppendJsonString(load.llama_loras.empty() ? request.model : "", body);
  if (!load.llama_loras.empty()) AppendLlamaLoras(load.llama_loras, request.model, body);
  body += ",\"prompt\":[";
  for (int32_t id : BenchPrompt(request, load.vocab_size, random)) absl::StrAppend(&body, id, ",");
  body.back() = ']';
  absl::StrAppend(&body, ",\"max_tokens\":", request.output_tokens,
                  ",\"temperature\":0,\"ignore_eos\":true,\"stream\":true,"
                  "\"stream_options\":{\"include_usage\":true}}");
  const std::string& key = load.KeyOf(request);
  return absl::StrCat("POST /v1/completions HTTP/1.1\r\nHost: ", load.target,
                      "\r\nContent-Type: application/json\r\nContent-Length: ", body.size(), "\r\n",
                      key.empty() ? "" : absl::StrCat("Authorization: Bearer ", key, "\r\n"),
                      "\r\n", body);
}

// The number after "key": in compact JSON; -1 where there is none.
int64_t NumberAfter(std::string_view json, std::string_view key) {
  const size_t at = json.find(key);
  if (at == std::string_view::npos) return -1;
  return std::strtoll(std::string(json.substr(at + key.size(), 24)).c_str(), nullptr, 10);
}

// One request on its way, and its connection.
struct Exchange {
  const BenchRequest* request = nullptr;
  BenchTimer timer{BenchTime{}};
  BenchTime sent_at{};
  std::string message;
  size_t sent = 0;
  HttpAnswerReader answer;
  EventReader events;
  std::string error;
  bool reused = false;  // the connection, whose other end may just have closed it
  bool whole = false;   // "[DONE]" has come
  bool cut = false;
  bool paused = false;
};

class HttpLoad {
 public:
  HttpLoad(const BenchLoad& load, const Address& address, const BenchSink& sink)
      : load_(load), address_(address), sink_(sink), random_(load.seed) {}
  ~HttpLoad() {
    for (int fd : idle_) ::close(fd);
    if (epoll_ >= 0) ::close(epoll_);
  }
  HttpLoad(const HttpLoad&) = delete;
  HttpLoad& operator=(const HttpLoad&) = delete;

  StatusOr<BenchTime> Run();

 private:
  struct Wake {
    BenchTime at;
    int fd;
    bool operator<(const Wake& other) const { return at > other.at; }
  };

  void StartDue(BenchTime begin);
  void Start(std::unique_ptr<Exchange> exchange);
  int Connect(const Exchange& exchange);
  void OnSocket(int fd, uint32_t events);
  bool Send(int fd, Exchange& exchange);
  void Receive(int fd, Exchange& exchange);
  void OnEvent(Exchange& exchange, std::string_view data);
  void End(int fd, bool whole);
  void WakeSlowReaders();
  void EndLateOnes();
  void Watch(int fd, uint32_t events) const;
  int64_t NanosToNext(BenchTime begin) const;

  const BenchLoad& load_;
  const Address address_;
  const BenchSink& sink_;
  std::mt19937_64 random_;
  int epoll_ = -1;
  size_t next_ = 0;       // of the requests
  std::string prepared_;  // the next one's message
  std::unordered_map<int, std::unique_ptr<Exchange>> exchanges_;
  std::vector<int> idle_;
  std::priority_queue<Wake> pauses_;
  BenchTime swept_{};
};

void HttpLoad::Watch(int fd, uint32_t events) const {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  if (::epoll_ctl(epoll_, EPOLL_CTL_MOD, fd, &event) != 0) {
    ::epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event);
  }
}

// Non-blocking; -1 where the system refuses.
int HttpLoad::Connect(const Exchange& exchange) {
  const int fd = ::socket(address_.socket.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  const int on = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  if (exchange.request->read_pause_ms > 0) {
    ::setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &kPausedSocketBytes, sizeof(kPausedSocketBytes));
  }
  const auto* to = reinterpret_cast<const sockaddr*>(&address_.socket);
  if (::connect(fd, to, address_.size) != 0 && errno != EINPROGRESS) {
    ::close(fd);
    return -1;
  }
  return fd;
}

void HttpLoad::Start(std::unique_ptr<Exchange> exchange) {
  int fd = -1;
  exchange->reused = !idle_.empty() && exchange->request->read_pause_ms == 0;
  if (exchange->reused) {
    fd = idle_.back();
    idle_.pop_back();
  } else {
    fd = Connect(*exchange);
  }
  if (fd < 0) {
    BenchOutcome outcome = exchange->timer.Finish(Clock::now());
    outcome.error = absl::StrCat("connection: ", std::strerror(errno));
    sink_(*exchange->request, std::move(outcome));
    return;
  }
  Exchange& started = *exchange;
  exchanges_[fd] = std::move(exchange);
  Watch(fd, EPOLLIN | EPOLLOUT);
  if (started.reused && !Send(fd, started)) End(fd, false);
}

void HttpLoad::StartDue(BenchTime begin) {
  while (next_ < load_.requests.size()) {
    const BenchRequest& request = load_.requests[next_];
    if (prepared_.empty()) prepared_ = MakeHttpRequest(load_, request, random_);
    const BenchTime intended = begin + std::chrono::microseconds(load_.ArrivalUs(request));
    const BenchTime now = Clock::now();
    if (intended > now) return;
    auto exchange = std::make_unique<Exchange>();
    exchange->request = &request;
    exchange->timer = BenchTimer(intended);
    exchange->timer.Sent(now);
    exchange->sent_at = now;
    exchange->message = std::move(prepared_);
    prepared_.clear();
    ++next_;
    Start(std::move(exchange));
  }
}

// False where the connection is gone.
bool HttpLoad::Send(int fd, Exchange& exchange) {
  const std::string& message = exchange.message;
  while (exchange.sent < message.size()) {
    const ssize_t n = ::send(fd, message.data() + exchange.sent, message.size() - exchange.sent,
                             MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno == EAGAIN;
    exchange.sent += static_cast<size_t>(n);
  }
  Watch(fd, EPOLLIN);
  return true;
}

void HttpLoad::OnEvent(Exchange& exchange, std::string_view data) {
  if (data == "[DONE]") {
    exchange.whole = true;
    return;
  }
  if (data.starts_with("{\"error\"")) exchange.error = data;
  const size_t text = data.find("\"text\":\"");
  if (text != std::string_view::npos && data.substr(text + 8, 1) != "\"") {
    exchange.timer.Tokens(1, Clock::now());
  }
  const int64_t written = NumberAfter(data, "\"completion_tokens\":");
  if (written >= 0) {
    exchange.timer.outcome().output_tokens = written;
    exchange.timer.outcome().input_tokens = NumberAfter(data, "\"prompt_tokens\":");
  }
  const int64_t cut = exchange.request->cancel_after_tokens;
  if (cut > 0 && exchange.timer.num_tokens() >= cut) exchange.cut = true;
}

void HttpLoad::Receive(int fd, Exchange& exchange) {
  const bool slow = exchange.request->read_pause_ms > 0;
  char bytes[kReadBytes];
  const ssize_t n = ::recv(fd, bytes, slow ? kPausedReadBytes : kReadBytes, MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n <= 0) {
    End(fd, exchange.answer.End());
    return;
  }
  const auto on_event = [&](std::string_view data) { OnEvent(exchange, data); };
  bool fits = true;
  const auto on_body = [&](std::string_view body) {
    if (exchange.answer.status() == 200) {
      fits = exchange.events.Append(body, on_event) && fits;
    } else if (exchange.error.size() < 4096) {
      exchange.error += body;
    }
  };
  const bool ok = exchange.answer.Append({bytes, static_cast<size_t>(n)}, on_body);
  if (!ok || !fits || exchange.cut || exchange.answer.done()) {
    End(fd, ok && fits && exchange.answer.done());
  } else if (slow) {
    exchange.paused = true;
    Watch(fd, 0);
    pauses_.push({Clock::now() + std::chrono::milliseconds(exchange.request->read_pause_ms), fd});
  }
}

void HttpLoad::End(int fd, bool whole) {
  const auto found = exchanges_.find(fd);
  std::unique_ptr<Exchange> exchange = std::move(found->second);
  exchanges_.erase(found);
  const int status = exchange->answer.status();
  if (whole && exchange->answer.keeps_connection() && exchange->request->read_pause_ms == 0) {
    idle_.push_back(fd);
  } else {
    ::close(fd);
  }
  if (!whole && exchange->reused && status == 0) {  // the server had closed it while it was idle
    exchange->sent = 0;
    for (int other : idle_) ::close(other);
    idle_.clear();
    Start(std::move(exchange));
    return;
  }
  using Ending = BenchOutcome::End;
  BenchOutcome outcome = exchange->timer.Finish(Clock::now());
  if (exchange->cut) {
    outcome.end = Ending::kCancelled;
  } else if (whole && status == 200 && exchange->whole && exchange->error.empty()) {
    outcome.end = Ending::kCompleted;
  } else {
    outcome.end = status == 429 ? Ending::kRefused : Ending::kFailed;
    outcome.error = absl::StrCat("HTTP ", status, ": ",
                                 exchange->error.empty() ? "cut short" : exchange->error);
  }
  sink_(*exchange->request, std::move(outcome));
}

void HttpLoad::OnSocket(int fd, uint32_t events) {
  const auto found = exchanges_.find(fd);
  if (found == exchanges_.end()) {  // an idle one, closed by the server
    if (std::erase(idle_, fd) > 0) ::close(fd);
    return;
  }
  Exchange& exchange = *found->second;
  if (exchange.paused && (events & (EPOLLERR | EPOLLHUP)) == 0) return;
  if ((events & EPOLLOUT) != 0 && !Send(fd, exchange)) {
    End(fd, false);
    return;
  }
  if ((events & ~static_cast<uint32_t>(EPOLLOUT)) != 0) Receive(fd, exchange);
}

void HttpLoad::WakeSlowReaders() {
  const BenchTime now = Clock::now();
  while (!pauses_.empty() && pauses_.top().at <= now) {
    const int fd = pauses_.top().fd;
    pauses_.pop();
    const auto found = exchanges_.find(fd);
    if (found == exchanges_.end() || !found->second->paused) continue;
    found->second->paused = false;
    Watch(fd, EPOLLIN);
  }
}

void HttpLoad::EndLateOnes() {
  const BenchTime now = Clock::now();
  if (now - swept_ < std::chrono::seconds(1)) return;
  swept_ = now;
  std::vector<int> late;
  for (const auto& [fd, exchange] : exchanges_) {
    if (now - exchange->sent_at > std::chrono::milliseconds(load_.timeout_ms)) late.push_back(fd);
  }
  for (int fd : late) {
    exchanges_[fd]->error = "timed out";
    exchanges_[fd]->reused = false;
    End(fd, false);
  }
}

int64_t HttpLoad::NanosToNext(BenchTime begin) const {
  BenchTime at = Clock::now() + std::chrono::seconds(1);
  if (next_ < load_.requests.size()) {
    const int64_t us = load_.ArrivalUs(load_.requests[next_]);
    at = std::min(at, begin + std::chrono::microseconds(us));
  }
  if (!pauses_.empty()) at = std::min(at, pauses_.top().at);
  return std::max<int64_t>(0, (at - Clock::now()).count());
}

StatusOr<BenchTime> HttpLoad::Run() {
  epoll_ = ::epoll_create1(EPOLL_CLOEXEC);
  if (epoll_ < 0) return Unavailable("epoll: %s", std::strerror(errno));
  const BenchTime begin = Clock::now();
  swept_ = begin;
  while (true) {
    StartDue(begin);
    if (exchanges_.empty() && next_ == load_.requests.size()) return begin;
    epoll_event events[256];
    const int64_t wait_ns = NanosToNext(begin);
    const timespec wait{wait_ns / 1'000'000'000, wait_ns % 1'000'000'000};
    const int count = ::epoll_pwait2(epoll_, events, 256, &wait, nullptr);
    for (int i = 0; i < count; ++i) OnSocket(events[i].data.fd, events[i].events);
    WakeSlowReaders();
    EndLateOnes();
  }
}

}  // namespace

const std::string& BenchLoad::KeyOf(const BenchRequest& request) const {
  const auto found = tenant_keys.find(request.tenant);
  return found == tenant_keys.end() ? api_key : found->second;
}

int64_t BenchLoad::ArrivalUs(const BenchRequest& request) const {
  return static_cast<int64_t>(static_cast<double>(request.at_us) / speed);
}

StatusOr<BenchTime> RunHttpLoad(const BenchLoad& load, const BenchSink& sink) {
  POLYAD_ASSIGN_OR_RETURN(const Address address, Resolve(load.target));
  RaiseDescriptorLimit();
  HttpLoad run(load, address, sink);
  return run.Run();
}

}  // namespace polyad
