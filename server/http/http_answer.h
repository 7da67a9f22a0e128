#pragma once

// HTTP/1.1 answers from a byte stream, for the load generator: bodies chunked, of a stated length
// or up to the connection's end; heads and lines bounded. And the events within one: lines of
// "data: ..." (server-sent events). One thread; never throws.

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace polyad {

class HttpAnswerReader {
 public:
  using BodySink = std::function<void(std::string_view)>;

  // Reads all of `bytes`; false where they are no answer (and ever after).
  bool Append(std::string_view bytes, const BodySink& on_body);
  // The connection has ended; true where the answer was whole by then.
  bool End();

  int status() const { return status_; }  // 0 before the head has come
  bool done() const { return state_ == State::kDone; }
  bool keeps_connection() const { return keeps_connection_; }

 private:
  enum class State { kHead, kSize, kChunk, kChunkEnd, kTrailer, kLength, kUntilEnd, kDone, kBad };

  bool TakeLine(std::string_view& bytes, std::string& line);  // without its end
  void ReadLine(const std::string& line);
  void ReadHeadLine(const std::string& line);
  void EndHead();

  State state_ = State::kHead;
  int status_ = 0;
  bool chunked_ = false;
  bool keeps_connection_ = true;
  int64_t length_ = -1;  // of the body; -1: not stated
  int64_t left_ = 0;     // of the body, or of the chunk
  int64_t head_bytes_ = 0;
  std::string line_;
};

class EventReader {
 public:
  using EventSink = std::function<void(std::string_view data)>;

  // False where an event is longer than a megabyte.
  bool Append(std::string_view body, const EventSink& on_event);

 private:
  std::string line_;
};

}  // namespace polyad
