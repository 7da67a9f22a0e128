#pragma once

// One request and its response, answered whole or as a stream from any thread; what the handlers
// see of HTTP. The first call that begins the response wins and later ones are ignored, so a late
// event cannot write into the next response of the connection. If the last holder lets go without
// answering, the client gets a 500. Not for use by two threads at once, except that OnClosed may
// run on the I/O thread at any time.

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "server/http/http_connection.h"

namespace polyad {

class HttpExchange {
 public:
  using Fields = std::vector<std::pair<std::string, std::string>>;

  HttpExchange(std::shared_ptr<HttpConnection> connection, HttpRequest request,
               size_t max_stream_bytes);
  ~HttpExchange();
  HttpExchange(const HttpExchange&) = delete;
  HttpExchange& operator=(const HttpExchange&) = delete;

  const HttpRequest& request() const { return request_; }
  // The body is read: a stream that lasts need not keep it.
  void DropBody() { std::string().swap(request_.body); }
  bool started() const { return started_; }
  // Who the client's certificate says it is; null where it showed none.
  std::shared_ptr<const PeerIdentity> peer() const { return connection_->peer(); }

  void Respond(int status, std::string_view content_type, std::string_view body,
               const Fields& fields = {});
  // A stream: chunked, or to the end of the connection for HTTP/1.0.
  void BeginStream(std::string_view content_type);
  // False once the client has left or leaves too much unread: stop producing.
  bool Write(std::string_view bytes);
  void EndStream();
  // The client cannot be told more: ends the connection where the stream stands.
  void AbortStream();
  // `closed` runs at most once, if the client leaves before the response is complete.
  void OnClosed(std::function<void()> closed) { connection_->WatchClose(std::move(closed)); }

 private:
  const std::shared_ptr<HttpConnection> connection_;
  HttpRequest request_;
  const size_t max_stream_bytes_;
  bool started_ = false;
  bool ended_ = false;
  std::string chunk_;  // reused by Write
};

std::string_view HttpReason(int status);
// Status line and fields up to the empty line; a length below zero stands for chunked.
std::string HttpHead(int status, std::string_view content_type, int64_t length, bool keep_alive,
                     const HttpExchange::Fields& fields);

}  // namespace polyad
