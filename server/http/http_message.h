#pragma once

// One HTTP request as parsed, and the limits it was parsed under. Plain values.

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace polyad {

struct HttpLimits {
  size_t max_head_bytes = 16 << 10;  // request line and header fields
  size_t max_target_bytes = 8 << 10;
  size_t max_fields = 100;
  size_t max_body_bytes = 4 << 20;
  size_t max_chunk_line_bytes = 256;     // size and extensions of one chunk
  size_t max_buffered_bytes = 64 << 20;  // requests not yet answered, all connections together
  size_t max_stream_bytes = 256 << 10;   // unread output of one stream
  size_t max_connections = 1024;
  int64_t handshake_timeout_ms = 5'000;  // of TLS, from the connection's beginning
  int64_t request_timeout_ms = 5'000;    // for the head, then for each 64 KiB of the body
  int64_t idle_timeout_ms = 60'000;      // between requests of one connection
  int64_t write_timeout_ms = 30'000;     // without the client taking a byte
};

struct HttpRequest {
  std::string method;
  std::string path;                                         // of the target, before '?'
  std::string query;                                        // after '?'
  std::vector<std::pair<std::string, std::string>> fields;  // names in lower case
  std::string body;
  int minor_version = 1;  // HTTP/1.x
  bool keep_alive = true;

  // The first field of that (lower-case) name; empty where absent.
  std::string_view Field(std::string_view name) const {
    for (const auto& [key, value] : fields) {
      if (key == name) return value;
    }
    return {};
  }
};

}  // namespace polyad
