#include "server/tool_call_reader.h"

#include <algorithm>
#include <optional>

#include "engine/base/tool_markup.h"
#include "engine/io/json.h"

namespace polyad {
namespace {

constexpr std::string_view kSpaces = " \t\r\n";
constexpr JsonLimits kCallJson{.max_bytes = 4 << 20, .max_depth = 64, .max_values = 1 << 18};

std::string_view TrimEnd(std::string_view text) {
  const size_t last = text.find_last_not_of(kSpaces);
  return last == std::string_view::npos ? std::string_view() : text.substr(0, last + 1);
}

// How many bytes at the end may yet turn out to be white space before a mark, or a mark's begin.
size_t NumUndecided(std::string_view text) {
  for (size_t size = std::min(kToolCallOpen.size() - 1, text.size()); size > 0; --size) {
    if (text.ends_with(kToolCallOpen.substr(0, size))) {
      return text.size() - TrimEnd(text.substr(0, text.size() - size)).size();
    }
  }
  return text.size() - TrimEnd(text).size();
}

std::string Dump(const OrderedJson& json) {
  return json.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
}

// Models of some families say "parameters".
std::optional<MadeToolCall> ParseCall(std::string_view text) {
  const StatusOr<OrderedJson> json = ParseOrderedJson(text, "call", kCallJson);
  if (!json.ok() || !json->is_object()) return std::nullopt;
  const auto name = json->find("name");
  if (name == json->end() || !name->is_string()) return std::nullopt;
  auto arguments = json->find("arguments");
  if (arguments == json->end()) arguments = json->find("parameters");
  if (arguments == json->end()) return MadeToolCall{name->get<std::string>(), "{}"};
  if (arguments->is_string()) {
    return MadeToolCall{name->get<std::string>(), arguments->get<std::string>()};
  }
  if (!arguments->is_object()) return std::nullopt;
  return MadeToolCall{name->get<std::string>(), Dump(*arguments)};
}

}  // namespace

void ToolCallReader::Content(std::string_view text, Piece& out) {
  if (num_calls_ > 0 && num_calls_ >= max_calls_) return;
  if (!begun_) {  // content begins with no white space where a call went before
    if (num_calls_ > 0) text.remove_prefix(std::min(text.find_first_not_of(kSpaces), text.size()));
    if (text.empty()) return;
    begun_ = true;
  }
  out.content += text;
}

// True where a call begins; all that is certain before it is given.
bool ToolCallReader::ReadContent(Piece& out) {
  const size_t mark = buffer_.find(kToolCallOpen);
  if (mark == std::string::npos) {
    const size_t sure = buffer_.size() - NumUndecided(buffer_);
    Content(std::string_view(buffer_).substr(0, sure), out);
    buffer_.erase(0, sure);
    return false;
  }
  const std::string_view before = TrimEnd(std::string_view(buffer_).substr(0, mark));
  gap_ = buffer_.substr(before.size(), mark - before.size());
  Content(before, out);
  buffer_.erase(0, mark);
  in_call_ = true;
  scanned_ = kToolCallOpen.size();
  in_string_ = false;
  return true;
}

// Where the closing mark stands, outside JSON's strings; npos: not yet.
size_t ToolCallReader::EndOfCall() {
  for (; scanned_ < buffer_.size(); ++scanned_) {
    const char c = buffer_[scanned_];
    if (in_string_ && c == '\\') {
      if (scanned_ + 1 == buffer_.size()) return std::string::npos;  // what it escapes is to come
      ++scanned_;
    } else if (c == '"') {
      in_string_ = !in_string_;
    } else if (!in_string_ && c == '<') {
      const std::string_view rest = std::string_view(buffer_).substr(scanned_);
      if (rest.starts_with(kToolCallClose)) return scanned_;
      if (kToolCallClose.starts_with(rest)) return std::string::npos;  // its begin
    }
  }
  return std::string::npos;
}

// True where the call has ended.
bool ToolCallReader::ReadCall(Piece& out) {
  const size_t end = EndOfCall();
  if (end == std::string::npos) return false;
  const size_t begin = kToolCallOpen.size();
  const auto call = ParseCall(std::string_view(buffer_).substr(begin, end - begin));
  const size_t past = end + kToolCallClose.size();
  in_call_ = false;
  if (!call.has_value()) {
    Content(gap_ + buffer_.substr(0, past), out);
  } else {
    if (num_calls_ < max_calls_) out.calls.push_back(*call);
    ++num_calls_;
    begun_ = false;
  }
  buffer_.erase(0, past);
  return true;
}

ToolCallReader::Piece ToolCallReader::Push(std::string_view text) {
  buffer_ += text;
  Piece out;
  while (in_call_ ? ReadCall(out) : ReadContent(out)) {
  }
  return out;
}

ToolCallReader::Piece ToolCallReader::Flush() {
  Piece out;
  if (in_call_) {
    Content(gap_ + buffer_, out);
  } else if (num_calls_ == 0 || buffer_.find_first_not_of(kSpaces) != std::string::npos) {
    Content(buffer_, out);
  }
  buffer_.clear();
  in_call_ = false;
  return out;
}

}  // namespace polyad
