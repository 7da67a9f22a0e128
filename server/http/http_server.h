#pragma once

// A small HTTP/1.1 server for APIs and event streams: one I/O thread over epoll reads and parses, a
// few workers run the handlers, and any thread may answer (http_exchange.h). A stream holds no
// thread, a slow or silent client holds only its bounded buffers, and everything has a limit
// (http_message.h). Why not a library: see docs/decisions on the HTTP front. Owned by main.

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <unordered_map>

#include "engine/base/clock.h"
#include "engine/base/status.h"
#include "engine/base/worker_pool.h"
#include "server/http/http_exchange.h"
#include "server/tls/tls_store.h"

namespace polyad {

class HttpServer {
 public:
  using Handler = std::function<void(const std::shared_ptr<HttpExchange>&)>;

  struct Options {
    std::string listen = "127.0.0.1:8080";  // HOST:PORT, port 0 takes a free one
    HttpLimits limits;
    size_t num_workers = 2;
    const TlsStore* tls = nullptr;  // null: plain HTTP; outlives the server
  };

  // `handler` runs on the workers and must not wait for an answer to be read. `clock` outlives the
  // server.
  static StatusOr<std::unique_ptr<HttpServer>> Start(Options options, Clock& clock,
                                                     Handler handler);
  ~HttpServer();  // ends every connection
  // Takes no more connections, and waits until every answer that has begun is with its client, or
  // with the kernel on its way there. False after `wait_ms`.
  bool Finish(int64_t wait_ms);

  const std::string& address() const { return address_; }
  int64_t num_connections() const { return num_connections_.load(std::memory_order_relaxed); }

 private:
  using Connection = std::shared_ptr<HttpConnection>;

  HttpServer(Options options, Clock& clock, Handler handler);
  Status Listen();
  void Run();
  void Accept();
  void WatchListener(bool on);
  void OnEvent(const Connection& connection, uint32_t events);
  void ShakeHands(const Connection& connection);
  void ReadSome(const Connection& connection);
  void Advance(const Connection& connection);
  void Dispatch(const Connection& connection);
  void AfterResponse(const Connection& connection);
  void RefuseAndClose(const Connection& connection, int status, const std::string& text);
  void DiscardInput(const Connection& connection);
  void Sweep();
  void Drop(const Connection& connection);

  const Options options_;
  Clock& clock_;
  const Handler handler_;
  std::string address_;
  int epoll_fd_ = -1;
  int listen_fd_ = -1;
  int wake_fd_ = -1;
  std::atomic<bool> stop_{false};
  std::atomic<int64_t> num_connections_{0};
  std::atomic<int64_t> handling_bytes_{0};  // requests on their way through the handlers
  std::atomic<int64_t> num_answering_{0};   // connections whose request is not answered wholly
  // The I/O thread only.
  std::unordered_map<int, Connection> connections_;
  int64_t reading_bytes_ = 0;
  bool accepting_ = true;
  std::unique_ptr<WorkerPool> workers_;
  std::thread thread_;
};

// Splits HOST:PORT; a host in [] is IPv6.
StatusOr<std::pair<std::string, int>> ParseListenAddress(const std::string& listen);

}  // namespace polyad
