#include "server/http/http_exchange.h"

#include <cstdint>
#include <limits>

namespace polyad {
namespace {

constexpr size_t kNoLimit = std::numeric_limits<size_t>::max();

void AppendHex(size_t value, std::string& out) {
  char digits[16];
  size_t count = 0;
  do {
    digits[count++] = "0123456789abcdef"[value & 15];
    value >>= 4;
  } while (value != 0);
  while (count > 0) out.push_back(digits[--count]);
}

}  // namespace

std::string_view HttpReason(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 409:
      return "Conflict";
    case 413:
      return "Content Too Large";
    case 414:
      return "URI Too Long";
    case 415:
      return "Unsupported Media Type";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 499:
      return "Client Closed Request";
    case 500:
      return "Internal Server Error";
    case 501:
      return "Not Implemented";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    case 505:
      return "HTTP Version Not Supported";
    default:
      return "Unknown";
  }
}

std::string HttpHead(int status, std::string_view content_type, int64_t length, bool keep_alive,
                     const HttpExchange::Fields& fields) {
  std::string head = "HTTP/1.1 " + std::to_string(status) + " ";
  head += HttpReason(status);
  head += "\r\nContent-Type: ";
  head += content_type;
  head += length < 0 ? std::string("\r\nTransfer-Encoding: chunked")
                     : "\r\nContent-Length: " + std::to_string(length);
  if (!keep_alive) head += "\r\nConnection: close";
  for (const auto& [name, value] : fields) {
    head += "\r\n";
    head += name;
    head += ": ";
    head += value;
  }
  head += "\r\n\r\n";
  return head;
}

HttpExchange::HttpExchange(std::shared_ptr<HttpConnection> connection, HttpRequest request,
                           size_t max_stream_bytes)
    : connection_(std::move(connection)),
      request_(std::move(request)),
      max_stream_bytes_(max_stream_bytes) {}

HttpExchange::~HttpExchange() {
  if (started_) {
    AbortStream();
  } else {
    Respond(500, "application/json",
            R"({"error":{"message":"the request was dropped","type":)"
            R"("server_error","param":null,"code":500}})");
  }
}

void HttpExchange::Respond(int status, std::string_view content_type, std::string_view body,
                           const Fields& fields) {
  if (started_) return;
  started_ = ended_ = true;
  std::string bytes = HttpHead(status, content_type, static_cast<int64_t>(body.size()),
                               request_.keep_alive, fields);
  bytes += body;
  const bool sent = connection_->Send(bytes, kNoLimit);
  connection_->FinishResponse(sent && request_.keep_alive);
}

void HttpExchange::BeginStream(std::string_view content_type) {
  if (started_) return;
  started_ = true;
  std::string head =
      HttpHead(200, content_type, -1, request_.keep_alive, {{"Cache-Control", "no-cache"}});
  if (request_.minor_version == 0) {
    head = "HTTP/1.0 200 OK\r\nContent-Type: " + std::string(content_type) + "\r\n\r\n";
  }
  connection_->Send(head, max_stream_bytes_);
}

bool HttpExchange::Write(std::string_view bytes) {
  if (!started_ || ended_ || bytes.empty()) return started_ && !ended_;
  if (request_.minor_version == 0) return connection_->Send(bytes, max_stream_bytes_);
  chunk_.clear();
  AppendHex(bytes.size(), chunk_);
  chunk_ += "\r\n";
  chunk_ += bytes;
  chunk_ += "\r\n";
  return connection_->Send(chunk_, max_stream_bytes_);
}

void HttpExchange::EndStream() {
  if (!started_ || ended_) return;
  ended_ = true;
  const bool chunked = request_.minor_version == 1;
  const bool sent = !chunked || connection_->Send("0\r\n\r\n", kNoLimit);
  connection_->FinishResponse(sent && chunked && request_.keep_alive);
}

void HttpExchange::AbortStream() {
  if (!started_ || ended_) return;
  ended_ = true;
  connection_->FinishResponse(false);
}

}  // namespace polyad
