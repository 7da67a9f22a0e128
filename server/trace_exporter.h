#pragma once

// Ended requests as OpenTelemetry spans, posted to a collector as OTLP over HTTP in JSON
// (opentelemetry-proto 1.x, POST <endpoint>/v1/traces). Off unless an endpoint is configured; then
// the only connection that the server opens by itself. One thread of its own; Export never waits:
// what the collector does not take in time is dropped and counted. A trace whose caller did not
// sample it is not exported. Thread-safe.

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "engine/base/status.h"
#include "server/request_log.h"

namespace polyad {

class TraceExporter {
 public:
  static constexpr size_t kMaxQueued = 4096;
  static constexpr size_t kMaxBatch = 512;

  struct Endpoint {
    std::string host;
    std::string port;
    std::string path;  // with /v1/traces
  };
  // "http://HOST[:PORT][/PATH]"; port 4318 where none is given.
  static StatusOr<Endpoint> ParseEndpoint(std::string_view url);

  explicit TraceExporter(Endpoint endpoint, int64_t timeout_ms = 5000);
  ~TraceExporter();  // sends what is queued, within the timeout

  void Export(const EndedRequest& request);
  int64_t num_exported() const { return num_exported_.load(); }
  int64_t num_dropped() const { return num_dropped_.load(); }

 private:
  void Run();
  void Send(const std::vector<EndedRequest>& batch);

  const Endpoint endpoint_;
  const int64_t timeout_ms_;
  std::atomic<int64_t> num_exported_{0};
  std::atomic<int64_t> num_dropped_{0};
  std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<EndedRequest> queue_;  // guarded by mutex_
  bool closed_ = false;             // likewise
  std::thread thread_;
};

// A request has ended now: a line in the log and, where `traces` is one, a span.
void NoteEnd(EndedRequest& request, TraceExporter* traces);

// The body of a post. Pure.
std::string OtlpBody(const std::vector<EndedRequest>& batch);

}  // namespace polyad
