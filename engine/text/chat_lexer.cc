#include "engine/text/chat_lexer.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

#include "engine/text/utf8.h"

namespace polyad {

namespace {

using Kind = ChatToken::Kind;

constexpr std::array<std::string_view, 6> kLongOperators = {"**", "//", "==", "!=", ">=", "<="};
constexpr std::string_view kShortOperators = "+-*/%~[](){}<>=.:|,;";

bool IsNameStart(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsTagSpace(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

size_t SkipSpace(std::string_view text, size_t at) {
  while (at < text.size()) {
    const Utf8Step step = StepUtf8(text.substr(at));
    if (!IsPythonSpace(step.value)) break;
    at += static_cast<size_t>(step.length);
  }
  return at;
}

std::string_view TrimRight(std::string_view text) {
  while (!text.empty()) {
    const size_t previous = PreviousUtf8(text, text.size());
    if (!IsPythonSpace(StepUtf8(text.substr(previous)).value)) break;
    text = text.substr(0, previous);
  }
  return text;
}

class Lexer {
 public:
  explicit Lexer(std::string source) : source_(std::move(source)), text_(source_) {}

  StatusOr<std::vector<ChatToken>> Run() {
    while (at_ < text_.size()) POLYAD_RETURN_IF_ERROR(DataAndTag());
    Add(Kind::kEnd, {});
    return std::move(tokens_);
  }

 private:
  Status Error(std::string_view what) const {
    const auto line =
        std::count(text_.begin(),
                   text_.begin() + static_cast<std::ptrdiff_t>(std::min(at_, text_.size())), '\n');
    return InvalidArgument("chat template, line %d: %s", line + 1, what);
  }

  void Add(Kind kind, std::string text) {
    while (line_at_ < std::min(at_, text_.size())) line_ += text_[line_at_++] == '\n';
    tokens_.push_back({.kind = kind, .text = std::move(text), .line = line_});
  }

  // Text up to the next tag, trimmed as the tag says, and then the tag.
  Status DataAndTag() {
    size_t open = at_;
    for (; open < text_.size(); ++open) {
      open = text_.find('{', open);
      if (open == std::string_view::npos) break;
      if (open + 1 < text_.size() &&
          (text_[open + 1] == '{' || text_[open + 1] == '%' || text_[open + 1] == '#'))
        break;
    }
    if (open >= text_.size()) {
      Add(Kind::kData, std::string(text_.substr(at_)));
      at_ = text_.size();
      return absl::OkStatus();
    }
    const char type = text_[open + 1];
    const char sign = open + 2 < text_.size() ? text_[open + 2] : '\0';
    std::string_view data = text_.substr(at_, open - at_);
    if (sign == '-') {
      data = TrimRight(data);
    } else if (sign != '+' && type != '{') {
      data = StripLineStart(data);
    }
    if (!data.empty()) Add(Kind::kData, std::string(data));
    at_ = open + 2 + (sign == '-' || sign == '+' ? 1 : 0);
    if (type == '#') return Comment();
    Add(type == '{' ? Kind::kVariableBegin : Kind::kBlockBegin, {});
    return Tag(type == '{' ? "}}" : "%}");
  }

  // lstrip_blocks: white space alone between a line's start and a block.
  std::string_view StripLineStart(std::string_view data) const {
    const size_t newline = data.rfind('\n');
    const size_t start = newline == std::string_view::npos ? 0 : newline + 1;
    if (start == 0 && !at_line_start_) return data;
    return SkipSpace(data, start) == data.size() ? data.substr(0, start) : data;
  }

  Status Comment() {
    const size_t close = text_.find("#}", at_);
    if (close == std::string_view::npos) return Error("an open comment");
    const char sign = close > at_ ? text_[close - 1] : '\0';
    at_ = close + 2;
    AfterTag(sign, true);
    return absl::OkStatus();
  }

  void AfterTag(char sign, bool trims_newline) {
    const size_t end = at_;
    if (sign == '-') {
      at_ = SkipSpace(text_, at_);
    } else if (trims_newline && sign != '+' && at_ < text_.size() && text_[at_] == '\n') {
      ++at_;
    }
    at_line_start_ = at_ > end && text_[at_ - 1] == '\n';
  }

  Status Tag(std::string_view close) {
    int depth = 0;
    while (true) {
      while (at_ < text_.size() && IsTagSpace(text_[at_])) ++at_;
      if (at_ >= text_.size()) return Error("an open tag");
      if (depth == 0) {
        const char sign = text_[at_] == '-' || text_[at_] == '+' ? text_[at_] : '\0';
        const size_t skip = sign == '\0' ? 0 : 1;
        if (text_.substr(at_ + skip, 2) == close && !(sign == '+' && close == "}}")) {
          at_ += skip + 2;
          Add(close == "}}" ? Kind::kVariableEnd : Kind::kBlockEnd, {});
          AfterTag(sign, close == "%}");
          return absl::OkStatus();
        }
      }
      POLYAD_RETURN_IF_ERROR(TagToken(&depth));
    }
  }

  Status TagToken(int* depth) {
    const char c = text_[at_];
    if (IsNameStart(c)) {
      const size_t begin = at_;
      while (at_ < text_.size() && (IsNameStart(text_[at_]) || IsDigit(text_[at_]))) ++at_;
      Add(Kind::kName, std::string(text_.substr(begin, at_ - begin)));
      return absl::OkStatus();
    }
    if (IsDigit(c)) return Number();
    if (c == '\'' || c == '"') return String(c);
    for (const std::string_view op : kLongOperators) {
      if (text_.substr(at_).starts_with(op)) {
        at_ += op.size();
        Add(Kind::kOperator, std::string(op));
        return absl::OkStatus();
      }
    }
    if (kShortOperators.find(c) == std::string_view::npos) return Error("an unexpected character");
    if (c == '(' || c == '[' || c == '{') ++*depth;
    if (c == ')' || c == ']' || c == '}') --*depth;
    if (*depth < 0) return Error("a bracket that was not opened");
    ++at_;
    Add(Kind::kOperator, std::string(1, c));
    return absl::OkStatus();
  }

  Status Number() {
    const size_t begin = at_;
    while (at_ < text_.size() && IsDigit(text_[at_])) ++at_;
    bool is_float = false;
    if (at_ + 1 < text_.size() && text_[at_] == '.' && IsDigit(text_[at_ + 1])) {
      is_float = true;
      ++at_;
      while (at_ < text_.size() && IsDigit(text_[at_])) ++at_;
    }
    if (at_ < text_.size() && IsNameStart(text_[at_])) return Error("a number with letters");
    const char* first = text_.data() + begin;
    const char* last = text_.data() + at_;
    Add(is_float ? Kind::kFloat : Kind::kInt, {});
    ChatToken& token = tokens_.back();
    const std::from_chars_result result = is_float ? std::from_chars(first, last, token.number)
                                                   : std::from_chars(first, last, token.integer);
    return result.ec == std::errc() && result.ptr == last ? absl::OkStatus()
                                                          : Error("a number out of range");
  }

  Status String(char quote) {
    std::string value;
    for (++at_; at_ < text_.size() && text_[at_] != quote; ++at_) {
      if (text_[at_] != '\\') {
        value.push_back(text_[at_]);
      } else {
        POLYAD_RETURN_IF_ERROR(Escape(&value));
      }
    }
    if (at_ >= text_.size()) return Error("an open string");
    ++at_;
    Add(Kind::kString, std::move(value));
    return absl::OkStatus();
  }

  // One backslash escape of Python; at_ ends on its last character.
  Status Escape(std::string* value) {
    static constexpr std::string_view kNames = "ntrbfav0\\'\"";
    static constexpr std::string_view kValues("\n\t\r\b\f\a\v\0\\'\"", 11);
    if (++at_ >= text_.size()) return Error("an open string");
    const char c = text_[at_];
    if (const size_t found = kNames.find(c); found != std::string_view::npos) {
      value->push_back(kValues[found]);
      return absl::OkStatus();
    }
    const size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (c == '\n') return absl::OkStatus();
    if (digits == 0) {
      value->push_back('\\');
      value->push_back(c);
      return absl::OkStatus();
    }
    uint32_t code = 0;
    const std::string_view hex = text_.substr(at_ + 1, digits);
    const auto result = std::from_chars(hex.data(), hex.data() + hex.size(), code, 16);
    if (hex.size() != digits || result.ptr != hex.data() + hex.size() || code > 0x10FFFF ||
        (code >= 0xD800 && code <= 0xDFFF)) {
      return Error("a bad escape");
    }
    AppendUtf8(code, value);
    at_ += digits;
    return absl::OkStatus();
  }

  std::string source_;
  std::string_view text_;
  size_t at_ = 0;
  size_t line_at_ = 0;
  int line_ = 1;
  bool at_line_start_ = true;
  std::vector<ChatToken> tokens_;
};

// Newlines become \n, and the last one goes.
std::string NormalizeNewlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out.push_back(source[i]);
    } else if (i + 1 >= source.size() || source[i + 1] != '\n') {
      out.push_back('\n');
    }
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

}  // namespace

StatusOr<std::vector<ChatToken>> LexChatTemplate(std::string_view source) {
  if (source.size() > kMaxChatTemplateBytes) {
    return InvalidArgument("chat template: at most %d bytes, got %d", kMaxChatTemplateBytes,
                           source.size());
  }
  if (!IsValidUtf8(source)) return InvalidArgument("chat template: not UTF-8");
  return Lexer(NormalizeNewlines(source)).Run();
}

}  // namespace polyad
