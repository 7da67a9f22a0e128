#pragma once

// HTTP/1.1 requests from a byte stream (RFC 9112), strictly: one way to say where a body ends, no
// folded fields, no bare line feeds, every part bounded before it is kept. Fed by the I/O thread
// piece by piece; never throws. A parser serves one connection, request after request (Next).

#include <cstdint>
#include <string>
#include <string_view>

#include "server/http/http_message.h"

namespace polyad {

class HttpParser {
 public:
  enum class Result { kNeedMore, kDone, kError };

  explicit HttpParser(const HttpLimits& limits) : limits_(limits) {}

  void Append(std::string_view bytes) { buffer_.append(bytes); }
  Result Parse();

  HttpRequest& request() { return request_; }
  int error_status() const { return error_status_; }  // where kError
  const std::string& error_text() const { return error_text_; }
  // True once, where the client waits for "100 Continue" before it sends the body.
  bool TakeContinue();
  // Drops the request that is done and keeps what came after it.
  void Next();

  bool idle() const { return state_ == State::kHead && buffer_.empty(); }
  bool in_body() const { return state_ != State::kHead; }
  size_t buffered_bytes() const { return buffer_.size() + request_.body.size(); }

 private:
  enum class State { kHead, kSizedBody, kChunkLine, kChunkData, kChunkEnd, kTrailers, kDone };

  Result ParseHead();
  bool ParseRequestLine(std::string_view line);
  bool ParseTarget(std::string_view target);
  bool ParseField(std::string_view line);
  bool FrameBody();
  bool FrameSizedBody(std::string_view lengths_field);
  void NoteConnection();
  Result ParseSizedBody();
  Result ParseChunkLine();
  Result ParseChunkData();
  Result ParseChunkEnd();
  Result ParseTrailers();
  Result Fail(int status, std::string text);

  const HttpLimits limits_;
  State state_ = State::kHead;
  std::string buffer_;  // not yet consumed
  HttpRequest request_;
  size_t body_left_ = 0;  // of a sized body or of one chunk
  bool wants_continue_ = false;
  int error_status_ = 0;
  std::string error_text_;
};

}  // namespace polyad
