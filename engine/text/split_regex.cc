#include "engine/text/split_regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>

#include "engine/base/check.h"
#include "engine/text/utf8.h"

namespace polyad {

namespace {

constexpr size_t kMaxPatternBytes = 16 * 1024;
// The longest legitimate match is a run of one character class over a whole prompt of
// kMaxEncodeBytes.
constexpr uint32_t kMatchLimit = 20'000'000;
constexpr uint32_t kDepthLimit = 100'000;
constexpr uint32_t kHeapLimitKib = 64 * 1024;

// Unicode White_Space, as members of a class: PCRE2's \s also takes U+180E.
constexpr std::string_view kSpaceMembers =
    "\\x09-\\x0d\\x20\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}"
    "\\x{3000}";
constexpr std::string_view kWordMembers = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}";
// PCRE2 10.40 and later read \p{Han} as the script extension; Oniguruma as the script.
constexpr std::array<std::string_view, 14> kScripts = {
    "Han",    "Hiragana", "Katakana", "Hangul", "Latin",   "Cyrillic",   "Greek",
    "Arabic", "Hebrew",   "Thai",     "Lao",    "Tibetan", "Devanagari", "Bopomofo"};

std::string Shorthand(char letter, bool in_class) {
  const bool space = letter == 's' || letter == 'S';
  const bool negated = letter == 'S' || letter == 'W';
  const std::string members(space ? kSpaceMembers : kWordMembers);
  if (in_class && !negated) return members;
  if (in_class) return std::string("\\") + letter;
  return (negated ? "[^" : "[") + members + "]";
}

// Rewrites one pattern from Oniguruma's reading to PCRE2's.
class Translator {
 public:
  explicit Translator(std::string_view pattern) : pattern_(pattern) {}

  StatusOr<std::string> Run() {
    while (at_ < pattern_.size()) POLYAD_RETURN_IF_ERROR(Step());
    return std::move(out_);
  }

 private:
  Status Step() {
    const char c = pattern_[at_];
    if (c == '\\' && at_ + 1 < pattern_.size()) return Escape();
    if (in_class_ && c == '&' && Peek(1) == '&') {
      return Unimplemented("pattern: the class intersection && in \"%s\"", pattern_);
    }
    if (in_class_ && c == '[' && Peek(1) != ':') {
      return Unimplemented("pattern: a class inside a class in \"%s\"", pattern_);
    }
    if (in_class_ && c == '[') return PosixClass();
    if (!in_class_ && c == '}' && Peek(1) == '+') {
      return Unimplemented("pattern: a {n,m}+ quantifier in \"%s\"", pattern_);
    }
    if (!in_class_ && c == '[') return OpenClass();
    if (in_class_ && c == ']') in_class_ = false;
    out_.push_back(c);
    ++at_;
    return absl::OkStatus();
  }

  Status OpenClass() {
    in_class_ = true;
    out_.push_back('[');
    ++at_;
    if (Peek(0) == '^') {
      out_.push_back('^');
      ++at_;
    }
    if (Peek(0) == ']') {
      out_ += "\\]";
      ++at_;
    }
    return absl::OkStatus();
  }

  Status PosixClass() {
    const size_t end = pattern_.find(":]", at_);
    if (end == std::string_view::npos)
      return InvalidArgument("pattern: open [: in \"%s\"", pattern_);
    out_ += pattern_.substr(at_, end + 2 - at_);
    at_ = end + 2;
    return absl::OkStatus();
  }

  Status Escape() {
    const char c = pattern_[at_ + 1];
    if (c == 's' || c == 'S' || c == 'w' || c == 'W') {
      out_ += Shorthand(c, in_class_);
      at_ += 2;
      return absl::OkStatus();
    }
    if (c == 'h' || c == 'H' || c == 'R' || c == 'X' || c == 'K' || c == 'G' || c == 'C') {
      return Unimplemented("pattern: \\%s in \"%s\"", std::string(1, c), pattern_);
    }
    if ((c == 'p' || c == 'P') && Peek(2) == '{') return Property();
    out_ += pattern_.substr(at_, 2);
    at_ += 2;
    return absl::OkStatus();
  }

  Status Property() {
    const size_t end = pattern_.find('}', at_);
    if (end == std::string_view::npos)
      return InvalidArgument("pattern: open \\p{ in \"%s\"", pattern_);
    std::string_view name = pattern_.substr(at_ + 3, end - at_ - 3);
    out_ += pattern_.substr(at_, 3);
    if (!name.empty() && name[0] == '^') {
      out_.push_back('^');
      name.remove_prefix(1);
    }
    for (const std::string_view script : kScripts) {
      if (name == script) out_ += "sc:";
    }
    out_ += name;
    out_.push_back('}');
    at_ = end + 1;
    return absl::OkStatus();
  }

  char Peek(size_t ahead) const {
    return at_ + ahead < pattern_.size() ? pattern_[at_ + ahead] : '\0';
  }

  std::string_view pattern_;
  size_t at_ = 0;
  bool in_class_ = false;
  std::string out_;
};

std::string ErrorText(int error) {
  std::array<PCRE2_UCHAR, 256> buffer{};
  pcre2_get_error_message(error, buffer.data(), buffer.size());
  return reinterpret_cast<const char*>(buffer.data());
}

}  // namespace

struct SplitRegex::Code {
  pcre2_code* code = nullptr;
  pcre2_match_context* context = nullptr;
  Code() = default;
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;
  ~Code() {
    pcre2_match_context_free(context);
    pcre2_code_free(code);
  }
};

StatusOr<SplitRegex> SplitRegex::Compile(std::string_view pattern) {
  if (pattern.size() > kMaxPatternBytes) {
    return InvalidArgument("pattern: at most %d bytes, got %d", kMaxPatternBytes, pattern.size());
  }
  POLYAD_ASSIGN_OR_RETURN(const std::string translated, Translator(pattern).Run());
  auto code = std::make_shared<Code>();
  int error = 0;
  PCRE2_SIZE offset = 0;
  // Ruby's syntax (Oniguruma's default): ^ and $ match at lines. Never \C: it would split a
  // character.
  const uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
  code->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                             options, &error, &offset, nullptr);
  if (code->code == nullptr) {
    return InvalidArgument("pattern \"%s\": %s at %d", pattern, ErrorText(error), offset);
  }
  pcre2_jit_compile(code->code, PCRE2_JIT_COMPLETE);  // where there is no JIT, the interpreter runs
  code->context = pcre2_match_context_create(nullptr);
  POLYAD_CHECK(code->context != nullptr, "out of memory");
  pcre2_set_match_limit(code->context, kMatchLimit);
  pcre2_set_depth_limit(code->context, kDepthLimit);
  pcre2_set_heap_limit(code->context, kHeapLimitKib);
  return SplitRegex(std::move(code));
}

Status SplitRegex::FindAll(std::string_view subject, std::vector<ByteRange>* matches) const {
  const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> data(
      pcre2_match_data_create(1, nullptr), &pcre2_match_data_free);
  POLYAD_CHECK(data != nullptr, "out of memory");
  const auto* text = reinterpret_cast<PCRE2_SPTR>(subject.data());
  size_t at = 0;
  while (at <= subject.size()) {
    int result = pcre2_match(code_->code, text, subject.size(), at, PCRE2_NO_UTF_CHECK, data.get(),
                             code_->context);
    if (result == PCRE2_ERROR_JIT_STACKLIMIT) {
      result = pcre2_match(code_->code, text, subject.size(), at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                           data.get(), code_->context);
    }
    if (result == PCRE2_ERROR_NOMATCH) break;
    if (result < 0) return ResourceExhausted("pre-tokeniser pattern: %s", ErrorText(result));
    const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(data.get());
    const size_t begin = offsets[0];
    const size_t end = offsets[1];
    if (begin > end)
      return InvalidArgument("pre-tokeniser pattern: a match that ends before it begins (\\K)");
    matches->push_back({static_cast<uint32_t>(begin), static_cast<uint32_t>(end)});
    at = end;
    if (begin == end)
      at += end < subject.size() ? static_cast<size_t>(Utf8Length(subject[end])) : 1;
  }
  return absl::OkStatus();
}

}  // namespace polyad
