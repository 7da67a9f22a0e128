#include "server/trace_exporter.h"

#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <utility>

#include "engine/base/log.h"
#include "server/json_text.h"

namespace polyad {
namespace {

constexpr std::string_view kScheme = "http://";
constexpr std::chrono::seconds kGather{1};  // spans that come meanwhile go together

void AppendKey(std::string_view key, std::string& out) {
  out += out.back() == '[' ? "" : ",";
  out += R"({"key":)";
  AppendJsonString(key, out);
  out += R"(,"value":{)";
}

void AppendText(std::string_view key, std::string_view value, std::string& out) {
  if (value.empty()) return;
  AppendKey(key, out);
  out += R"("stringValue":)";
  AppendJsonString(value, out);
  out += "}}";
}

void AppendInt(std::string_view key, int64_t value, std::string& out) {
  AppendKey(key, out);
  out +=
      R"("intValue":")" + std::to_string(value) + "\"}}";  // 64 bits are strings in protobuf's JSON
}

void AppendMillis(std::string_view key, double value, std::string& out) {
  AppendKey(key, out);
  out += R"("doubleValue":)";
  AppendJsonNumber(value, out);
  out += "}}";
}

// Names as in OpenTelemetry's conventions for generative AI, where they have one.
void AppendSpan(const EndedRequest& request, std::string& out) {
  const bool embeds = request.reason == "embedding";
  out +=
      R"({"traceId":")" + request.trace.trace_id + R"(","spanId":")" + request.trace.span_id + "\"";
  if (!request.trace.parent_id.empty()) {
    out += R"(,"parentSpanId":")" + request.trace.parent_id + "\"";
  }
  out += R"(,"name":")" + std::string(embeds ? "embeddings" : "generate") + R"(","kind":2)";
  out += R"(,"startTimeUnixNano":")" + std::to_string(request.begin_unix_us) + "000\"";
  out += R"(,"endTimeUnixNano":")" + std::to_string(request.end_unix_us) + "000\"";
  out += R"(,"attributes":[)";
  AppendText("gen_ai.operation.name", embeds ? "embeddings" : "generate", out);
  AppendText("gen_ai.request.model", request.adapter.name, out);
  AppendInt("gen_ai.usage.input_tokens", request.usage.prompt_tokens, out);
  AppendInt("gen_ai.usage.output_tokens", request.usage.completion_tokens, out);
  AppendText("polyad.request_id", request.request_id, out);
  AppendText("polyad.tenant", request.tenant, out);
  AppendText("polyad.reason", request.reason, out);
  AppendInt("polyad.adapter.version", request.adapter.version, out);
  AppendInt("polyad.cached_tokens", request.usage.cached_tokens, out);
  AppendMillis("polyad.queue_ms", request.timings.queue_ms, out);
  AppendMillis("polyad.adapter_wait_ms", request.timings.adapter_wait_ms, out);
  AppendMillis("polyad.prefill_ms", request.timings.prefill_ms, out);
  AppendMillis("polyad.decode_ms", request.timings.decode_ms, out);
  out += R"(],"status":{"code":)";
  out += request.status.ok() ? "1" : "2";
  if (!request.status.ok()) {
    out += R"(,"message":)";
    AppendJsonString(absl::StatusCodeToString(request.status.code()), out);
  }
  out += "}}";
}

// A connection with a deadline for all that is done on it.
class Connection {
 public:
  explicit Connection(int64_t timeout_ms)
      : until_(std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms)) {}
  ~Connection() {
    if (fd_ >= 0) ::close(fd_);
  }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  bool Open(const std::string& host, const std::string& port) {
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    if (::getaddrinfo(host.c_str(), port.c_str(), &hints, &found) != 0) return false;
    const std::unique_ptr<addrinfo, void (*)(addrinfo*)> list(found, ::freeaddrinfo);
    for (const addrinfo* at = found; at != nullptr; at = at->ai_next) {
      fd_ = ::socket(at->ai_family, at->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
      if (fd_ < 0) continue;
      if (::connect(fd_, at->ai_addr, at->ai_addrlen) == 0 || (Wait(POLLOUT) && Error() == 0)) {
        return true;
      }
      ::close(std::exchange(fd_, -1));
    }
    return false;
  }
  bool Write(std::string_view bytes) {
    while (!bytes.empty()) {
      if (!Wait(POLLOUT)) return false;
      const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(n));
    }
    return true;
  }
  // The answer's status; 0 where there is none.
  int ReadStatus() {
    constexpr size_t kStatusEnd = 12;  // "HTTP/1.1 200"
    std::string head;
    char bytes[256];
    while (head.size() < kStatusEnd) {
      if (!Wait(POLLIN)) return 0;
      const ssize_t n = ::recv(fd_, bytes, sizeof(bytes), 0);
      if (n <= 0) return 0;
      head.append(bytes, static_cast<size_t>(n));
    }
    if (!head.starts_with("HTTP/1.")) return 0;
    return std::atoi(head.c_str() + kStatusEnd - 3);
  }

 private:
  bool Wait(short events) const {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
                          until_ - std::chrono::steady_clock::now())
                          .count();
    pollfd watched{fd_, events, 0};
    return left > 0 && ::poll(&watched, 1, static_cast<int>(left)) > 0;
  }
  int Error() const {
    int error = 0;
    socklen_t size = sizeof(error);
    ::getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &size);
    return error;
  }

  const std::chrono::steady_clock::time_point until_;
  int fd_ = -1;
};

}  // namespace

void NoteEnd(EndedRequest& request, TraceExporter* traces) {
  request.end_unix_us = UnixMicros();
  LogRequest(request);
  if (traces != nullptr) traces->Export(request);
}

std::string OtlpBody(const std::vector<EndedRequest>& batch) {
  std::string out =
      R"({"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":)"
      R"({"stringValue":"polyad"}}]},"scopeSpans":[{"scope":{"name":"polyad"},"spans":[)";
  for (size_t i = 0; i < batch.size(); ++i) {
    if (i > 0) out += ',';
    AppendSpan(batch[i], out);
  }
  return out + "]}]}]}";
}

StatusOr<TraceExporter::Endpoint> TraceExporter::ParseEndpoint(std::string_view url) {
  const std::string given(url);
  if (!url.starts_with(kScheme)) {
    return InvalidArgument("otlp_endpoint: expected http://HOST[:PORT], got '%s'", given);
  }
  url.remove_prefix(kScheme.size());
  const size_t slash = std::min(url.find('/'), url.size());
  std::string_view authority = url.substr(0, slash);
  std::string_view path = url.substr(slash);
  while (path.ends_with('/')) path.remove_suffix(1);
  Endpoint endpoint;
  endpoint.port = "4318";
  const size_t colon = authority.rfind(':');
  if (colon != std::string_view::npos && authority.back() != ']') {
    endpoint.port = authority.substr(colon + 1);
    authority = authority.substr(0, colon);
  }
  if (authority.starts_with('[') && authority.ends_with(']')) {
    authority = authority.substr(1, authority.size() - 2);
  }
  endpoint.host = authority;
  endpoint.path = std::string(path) + "/v1/traces";
  const bool is_port = !endpoint.port.empty() && endpoint.port.size() <= 5 &&
                       endpoint.port.find_first_not_of("0123456789") == std::string::npos;
  const bool is_plain = endpoint.host.find_first_of(" \r\n@?#") == std::string::npos &&
                        !endpoint.host.empty() &&
                        endpoint.path.find_first_of(" \r\n?#") == std::string::npos;
  if (is_port && is_plain) return endpoint;
  return InvalidArgument("otlp_endpoint: expected http://HOST[:PORT], got '%s'", given);
}

TraceExporter::TraceExporter(Endpoint endpoint, int64_t timeout_ms)
    : endpoint_(std::move(endpoint)), timeout_ms_(timeout_ms), thread_([this] { Run(); }) {}

TraceExporter::~TraceExporter() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    closed_ = true;
  }
  ready_.notify_all();
  thread_.join();
}

void TraceExporter::Export(const EndedRequest& request) {
  if (!request.trace.sampled) return;
  std::lock_guard<std::mutex> lock(mutex_);
  if (queue_.size() >= kMaxQueued) {
    ++num_dropped_;
  } else {
    queue_.push_back(request);
  }
}

void TraceExporter::Run() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    ready_.wait_for(lock, kGather, [this] { return closed_; });
    const bool last = closed_;
    while (!queue_.empty()) {
      std::vector<EndedRequest> batch;
      for (; !queue_.empty() && batch.size() < kMaxBatch; queue_.pop_front()) {
        batch.push_back(std::move(queue_.front()));
      }
      lock.unlock();
      Send(batch);
      lock.lock();
    }
    if (last) return;
  }
}

void TraceExporter::Send(const std::vector<EndedRequest>& batch) {
  const std::string body = OtlpBody(batch);
  const std::string head = "POST " + endpoint_.path + " HTTP/1.1\r\nHost: " + endpoint_.host + ":" +
                           endpoint_.port +
                           "\r\nContent-Type: application/json\r\nConnection: close\r\n"
                           "Content-Length: " +
                           std::to_string(body.size()) + "\r\n\r\n";
  Connection connection(timeout_ms_);
  int status = 0;
  if (connection.Open(endpoint_.host, endpoint_.port) && connection.Write(head) &&
      connection.Write(body)) {
    status = connection.ReadStatus();
  }
  const auto count = static_cast<int64_t>(batch.size());
  if (status >= 200 && status < 300) {
    num_exported_ += count;
    return;
  }
  num_dropped_ += count;
  Log(LogLevel::kWarning, "traces_not_exported",
      {{"spans", count}, {"status", status}, {"host", endpoint_.host}});
}

}  // namespace polyad
