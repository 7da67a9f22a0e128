#include "server/http/http_answer.h"

#include <algorithm>
#include <charconv>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"

namespace polyad {
namespace {

constexpr int64_t kMaxHeadBytes = 65536;
constexpr size_t kMaxEventBytes = 1 << 20;

bool ParseNumber(std::string_view text, int base, int64_t& value) {
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value, base);
  return result.ec == std::errc() && result.ptr == text.data() + text.size() && value >= 0;
}

std::string Trimmed(std::string_view text) {
  return std::string(absl::StripAsciiWhitespace({text.data(), text.size()}));
}

}  // namespace

bool HttpAnswerReader::TakeLine(std::string_view& bytes, std::string& line) {
  const size_t end = bytes.find('\n');
  const size_t size = std::min(end, bytes.size());
  head_bytes_ += static_cast<int64_t>(size);
  if (head_bytes_ > kMaxHeadBytes) {
    state_ = State::kBad;
    return false;
  }
  line_ += bytes.substr(0, size);
  bytes.remove_prefix(std::min(size + 1, bytes.size()));
  if (end == std::string_view::npos) return false;
  if (!line_.empty() && line_.back() == '\r') line_.pop_back();
  line = std::move(line_);
  line_.clear();
  return true;
}

void HttpAnswerReader::ReadHeadLine(const std::string& line) {
  if (status_ == 0) {
    int64_t status = 0;
    const bool ok = line.starts_with("HTTP/1.") && line.size() >= 12 &&
                    ParseNumber(std::string_view(line).substr(9, 3), 10, status) && status >= 100;
    status_ = static_cast<int>(status);
    if (!ok) state_ = State::kBad;
    return;
  }
  if (line.empty()) {
    EndHead();
    return;
  }
  const size_t colon = line.find(':');
  if (colon == std::string::npos) {
    state_ = State::kBad;
    return;
  }
  const std::string name = absl::AsciiStrToLower(line.substr(0, colon));
  const std::string value =
      absl::AsciiStrToLower(Trimmed(std::string_view(line).substr(colon + 1)));
  if (name == "transfer-encoding") chunked_ = value == "chunked";
  if (name == "connection") keeps_connection_ = value != "close";
  if (name == "content-length" && !ParseNumber(value, 10, length_)) state_ = State::kBad;
}

void HttpAnswerReader::EndHead() {
  head_bytes_ = 0;
  if (status_ < 200) {  // "100 Continue": the answer comes after it
    status_ = 0;
  } else if (chunked_) {
    state_ = State::kSize;
  } else if (length_ >= 0) {
    left_ = length_;
    state_ = length_ == 0 ? State::kDone : State::kLength;
  } else {
    keeps_connection_ = false;
    state_ = State::kUntilEnd;
  }
}

void HttpAnswerReader::ReadLine(const std::string& line) {
  switch (state_) {
    case State::kHead:
      ReadHeadLine(line);
      return;
    case State::kSize:
      head_bytes_ = 0;
      if (!ParseNumber(Trimmed(line.substr(0, line.find(';'))), 16, left_)) {
        state_ = State::kBad;
      } else {
        state_ = left_ == 0 ? State::kTrailer : State::kChunk;
      }
      return;
    case State::kChunkEnd:
      state_ = line.empty() ? State::kSize : State::kBad;
      return;
    default:
      if (line.empty()) state_ = State::kDone;
  }
}

bool HttpAnswerReader::Append(std::string_view bytes, const BodySink& on_body) {
  while (!bytes.empty() && state_ != State::kBad) {
    if (state_ == State::kDone) {
      state_ = State::kBad;  // more than was asked for
    } else if (state_ == State::kUntilEnd) {
      on_body(bytes);
      return true;
    } else if (state_ == State::kChunk || state_ == State::kLength) {
      const size_t size = std::min(bytes.size(), static_cast<size_t>(left_));
      on_body(bytes.substr(0, size));
      bytes.remove_prefix(size);
      left_ -= static_cast<int64_t>(size);
      if (left_ == 0) state_ = state_ == State::kChunk ? State::kChunkEnd : State::kDone;
    } else if (std::string line; TakeLine(bytes, line)) {
      ReadLine(line);
    }
  }
  return state_ != State::kBad;
}

bool HttpAnswerReader::End() {
  if (state_ == State::kUntilEnd) state_ = State::kDone;
  return done();
}

bool EventReader::Append(std::string_view body, const EventSink& on_event) {
  while (!body.empty()) {
    const size_t end = body.find('\n');
    const size_t size = std::min(end, body.size());
    if (line_.size() + size > kMaxEventBytes) return false;
    line_ += body.substr(0, size);
    body.remove_prefix(std::min(size + 1, body.size()));
    if (end == std::string_view::npos) return true;
    if (line_.starts_with("data:")) on_event(Trimmed(std::string_view(line_).substr(5)));
    line_.clear();
  }
  return true;
}

}  // namespace polyad
