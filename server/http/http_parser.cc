#include "server/http/http_parser.h"

#include <algorithm>

namespace polyad {
namespace {

constexpr std::string_view kLineEnd = "\r\n";
constexpr std::string_view kHeadEnd = "\r\n\r\n";
constexpr size_t kMaxLengthDigits = 18;
constexpr size_t kMaxTrailerBytes = 4 << 10;

bool IsTokenChar(char c) {  // RFC 9110 5.6.2
  constexpr std::string_view kOther = "!#$%&'*+-.^_`|~";
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         kOther.find(c) != std::string_view::npos;
}

bool IsToken(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), IsTokenChar);
}

bool HasControl(std::string_view text) {
  return std::any_of(text.begin(), text.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return (byte < 0x20 && c != '\t') || byte == 0x7f;
  });
}

std::string Lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  }
  return out;
}

std::string_view TrimBlanks(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

int HexValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

}  // namespace

HttpParser::Result HttpParser::Parse() {
  while (true) {
    const State before = state_;
    Result result = Result::kNeedMore;
    switch (state_) {
      case State::kHead:
        result = ParseHead();
        break;
      case State::kSizedBody:
        result = ParseSizedBody();
        break;
      case State::kChunkLine:
        result = ParseChunkLine();
        break;
      case State::kChunkData:
        result = ParseChunkData();
        break;
      case State::kChunkEnd:
        result = ParseChunkEnd();
        break;
      case State::kTrailers:
        result = ParseTrailers();
        break;
      case State::kDone:
        return Result::kDone;
    }
    if (result == Result::kError || state_ == before) return result;
  }
}

HttpParser::Result HttpParser::ParseHead() {
  const size_t end = buffer_.find(kHeadEnd);
  if (end == std::string::npos ? buffer_.size() > limits_.max_head_bytes
                               : end > limits_.max_head_bytes) {
    return Fail(
        431, "request head: expected at most " + std::to_string(limits_.max_head_bytes) + " bytes");
  }
  if (end == std::string::npos) {
    // Nothing that starts like this becomes a request.
    if (!buffer_.empty() && !IsTokenChar(buffer_.front())) return Fail(400, "malformed request");
    return Result::kNeedMore;
  }
  const std::string head = buffer_.substr(0, end + kLineEnd.size());
  buffer_.erase(0, end + kHeadEnd.size());
  size_t begin = 0;
  for (bool first = true; begin < head.size(); first = false) {
    const size_t line_end = head.find(kLineEnd, begin);
    const std::string_view line = std::string_view(head).substr(begin, line_end - begin);
    begin = line_end + kLineEnd.size();
    if (!(first ? ParseRequestLine(line) : ParseField(line))) return Result::kError;
  }
  if (request_.minor_version == 1 && request_.Field("host").empty()) {
    return Fail(400, "host: expected in every HTTP/1.1 request");
  }
  NoteConnection();
  return FrameBody() ? Result::kNeedMore : Result::kError;
}

bool HttpParser::ParseRequestLine(std::string_view line) {
  const size_t first = line.find(' ');
  const size_t last = line.rfind(' ');
  if (first == std::string_view::npos || first == last || first > 16 ||
      !IsToken(line.substr(0, first))) {
    return Fail(400, "malformed request line") != Result::kError;
  }
  const std::string_view version = line.substr(last + 1);
  if (version != "HTTP/1.1" && version != "HTTP/1.0") {
    return Fail(505, "expected HTTP/1.1 or HTTP/1.0") != Result::kError;
  }
  request_.minor_version = version.back() - '0';
  request_.method = std::string(line.substr(0, first));
  return ParseTarget(line.substr(first + 1, last - first - 1));
}

bool HttpParser::ParseTarget(std::string_view target) {
  if (target.size() > limits_.max_target_bytes) {
    return Fail(414, "request target: too long") != Result::kError;
  }
  const bool printable =
      std::all_of(target.begin(), target.end(), [](char c) { return c > 0x20 && c < 0x7f; });
  if (target.empty() || target.front() != '/' || !printable) {
    return Fail(400, "request target: expected an absolute path") != Result::kError;
  }
  const size_t question = std::min(target.find('?'), target.size());
  request_.path = std::string(target.substr(0, question));
  if (question < target.size()) request_.query = std::string(target.substr(question + 1));
  return true;
}

bool HttpParser::ParseField(std::string_view line) {
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos || !IsToken(line.substr(0, colon)) || HasControl(line)) {
    return Fail(400, "malformed header field") != Result::kError;
  }
  if (request_.fields.size() == limits_.max_fields) {
    return Fail(431, "header fields: expected at most " + std::to_string(limits_.max_fields)) !=
           Result::kError;
  }
  request_.fields.emplace_back(Lower(line.substr(0, colon)),
                               std::string(TrimBlanks(line.substr(colon + 1))));
  return true;
}

void HttpParser::NoteConnection() {
  const std::string connection = Lower(request_.Field("connection"));
  request_.keep_alive = request_.minor_version == 1
                            ? connection.find("close") == std::string::npos
                            : connection.find("keep-alive") != std::string::npos;
}

// Decides where the body ends. Two answers in one request are an attack (request smuggling), never
// a choice.
bool HttpParser::FrameBody() {
  const std::string* length = nullptr;
  const std::string* encoding = nullptr;
  for (const auto& [name, value] : request_.fields) {
    const std::string** slot = name == "content-length"      ? &length
                               : name == "transfer-encoding" ? &encoding
                                                             : nullptr;
    if (slot == nullptr) continue;
    if (*slot != nullptr) return Fail(400, name + ": expected once") != Result::kError;
    *slot = &value;
  }
  if (encoding != nullptr) {
    if (length != nullptr || request_.minor_version == 0) {
      return Fail(400, "transfer-encoding: not with content-length or HTTP/1.0") != Result::kError;
    }
    if (Lower(*encoding) != "chunked") {
      return Fail(501, "transfer-encoding: expected chunked") != Result::kError;
    }
    state_ = State::kChunkLine;
  } else if (length != nullptr) {
    if (!FrameSizedBody(*length)) return false;
  } else {
    state_ = State::kDone;
  }
  wants_continue_ = state_ != State::kDone && Lower(request_.Field("expect")) == "100-continue";
  return true;
}

bool HttpParser::FrameSizedBody(std::string_view length) {
  if (length.empty() || length.size() > kMaxLengthDigits ||
      length.find_first_not_of("0123456789") != std::string_view::npos) {
    return Fail(400, "content-length: expected decimal digits") != Result::kError;
  }
  size_t bytes = 0;
  for (char c : length) bytes = bytes * 10 + static_cast<size_t>(c - '0');
  if (bytes > limits_.max_body_bytes) {
    return Fail(413, "body: expected at most " + std::to_string(limits_.max_body_bytes) +
                         " bytes, got " + std::to_string(bytes)) != Result::kError;
  }
  body_left_ = bytes;
  state_ = bytes == 0 ? State::kDone : State::kSizedBody;
  return true;
}

HttpParser::Result HttpParser::ParseSizedBody() {
  const size_t taken = std::min(body_left_, buffer_.size());
  request_.body.append(buffer_, 0, taken);
  buffer_.erase(0, taken);
  body_left_ -= taken;
  if (body_left_ == 0) state_ = State::kDone;
  return Result::kNeedMore;
}

HttpParser::Result HttpParser::ParseChunkLine() {
  const size_t end = buffer_.find(kLineEnd);
  if (std::min(end, buffer_.size()) > limits_.max_chunk_line_bytes) {
    return Fail(400, "chunk: its first line is too long");
  }
  if (end == std::string::npos) return Result::kNeedMore;
  size_t bytes = 0;
  size_t digits = 0;
  for (; digits < end && HexValue(buffer_[digits]) >= 0; ++digits) {
    if (digits == 8) return Fail(413, "chunk: too large");
    bytes = bytes * 16 + static_cast<size_t>(HexValue(buffer_[digits]));
  }
  const char after = buffer_[digits];
  if (digits == 0 || (digits < end && after != ';' && after != ' ' && after != '\t')) {
    return Fail(400, "chunk: expected a size in hexadecimal");
  }
  if (bytes > limits_.max_body_bytes - request_.body.size()) {
    return Fail(413, "body: expected at most " + std::to_string(limits_.max_body_bytes) + " bytes");
  }
  buffer_.erase(0, end + kLineEnd.size());
  body_left_ = bytes;
  state_ = bytes == 0 ? State::kTrailers : State::kChunkData;
  return Result::kNeedMore;
}

HttpParser::Result HttpParser::ParseChunkData() {
  const size_t taken = std::min(body_left_, buffer_.size());
  request_.body.append(buffer_, 0, taken);
  buffer_.erase(0, taken);
  body_left_ -= taken;
  if (body_left_ == 0) state_ = State::kChunkEnd;
  return Result::kNeedMore;
}

HttpParser::Result HttpParser::ParseChunkEnd() {
  if (buffer_.size() < kLineEnd.size()) return Result::kNeedMore;
  if (!std::string_view(buffer_).starts_with(kLineEnd)) {
    return Fail(400, "chunk: expected a line end after its data");
  }
  buffer_.erase(0, kLineEnd.size());
  state_ = State::kChunkLine;
  return Result::kNeedMore;
}

// Trailer fields are read past and forgotten.
HttpParser::Result HttpParser::ParseTrailers() {
  const size_t end = buffer_.find(kLineEnd);
  if (std::min(end, buffer_.size()) > kMaxTrailerBytes) return Fail(431, "trailers: too long");
  if (end == std::string::npos) return Result::kNeedMore;
  body_left_ += end;
  if (body_left_ > kMaxTrailerBytes) return Fail(431, "trailers: too long");
  buffer_.erase(0, end + kLineEnd.size());
  if (end == 0) {
    state_ = State::kDone;
    return Result::kNeedMore;
  }
  return ParseTrailers();
}

HttpParser::Result HttpParser::Fail(int status, std::string text) {
  error_status_ = status;
  error_text_ = std::move(text);
  return Result::kError;
}

bool HttpParser::TakeContinue() {
  const bool wanted = wants_continue_ && buffer_.empty() && state_ != State::kDone;
  wants_continue_ = false;
  return wanted;
}

void HttpParser::Next() {
  request_ = HttpRequest();
  state_ = State::kHead;
  body_left_ = 0;
  wants_continue_ = false;
}

}  // namespace polyad
