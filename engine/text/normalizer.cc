#include "engine/text/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <utility>

#include "engine/base/check.h"
#include "engine/text/utf8.h"

namespace polyad {

namespace {

using Kind = NormalizerStep::Kind;

bool IsAscii(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

// Canonical (or compatibility) decomposition in canonical order: each run of combining marks sorted
// by its class.
std::vector<utf8proc_int32_t> Decompose(std::string_view text, bool compat) {
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE | UTF8PROC_STABLE |
                                                      (compat ? UTF8PROC_COMPAT : 0));
  std::vector<utf8proc_int32_t> chars;
  std::array<utf8proc_int32_t, 32> parts{};  // U+FDFA, the longest, has 18
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = StepUtf8(text.substr(at));
    at += static_cast<size_t>(step.length);
    int boundary = 0;
    const utf8proc_ssize_t count = utf8proc_decompose_char(
        static_cast<utf8proc_int32_t>(step.value), parts.data(), parts.size(), options, &boundary);
    POLYAD_CHECK(count >= 0 && static_cast<size_t>(count) <= parts.size(), "decomposition");
    chars.insert(chars.end(), parts.begin(), parts.begin() + count);
  }
  const auto mark_class = [](utf8proc_int32_t c) {
    return utf8proc_get_property(c)->combining_class;
  };
  for (size_t begin = 0; begin < chars.size();) {
    size_t end = begin + 1;
    if (mark_class(chars[begin]) != 0) {
      while (end < chars.size() && mark_class(chars[end]) != 0) ++end;
      std::stable_sort(
          chars.begin() + static_cast<std::ptrdiff_t>(begin),
          chars.begin() + static_cast<std::ptrdiff_t>(end),
          [&](utf8proc_int32_t a, utf8proc_int32_t b) { return mark_class(a) < mark_class(b); });
    }
    begin = end;
  }
  return chars;
}

std::string NormalForm(std::string_view text, Kind kind) {
  if (IsAscii(text)) return std::string(text);
  const bool compat = kind == Kind::kNfkc || kind == Kind::kNfkd;
  std::vector<utf8proc_int32_t> chars = Decompose(text, compat);
  if (kind == Kind::kNfc || kind == Kind::kNfkc) {
    const auto options = static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    const utf8proc_ssize_t size = utf8proc_normalize_utf32(
        chars.data(), static_cast<utf8proc_ssize_t>(chars.size()), options);
    POLYAD_CHECK(size >= 0, "composition");
    chars.resize(static_cast<size_t>(size));
  }
  std::string out;
  out.reserve(text.size());
  for (const utf8proc_int32_t c : chars) AppendUtf8(static_cast<char32_t>(c), &out);
  return out;
}

// An ASCII character never composes with what precedes it, so it begins a piece that normalises on
// its own. In text of mixed provenance the marks are kept piece by piece.
MarkedText NormalFormMarked(const MarkedText& in, Kind kind) {
  MarkedText out{.text = {}, .marks = {}, .user = in.user};
  if (in.marks.empty()) {
    out.text = NormalForm(in.text, kind);
    return out;
  }
  for (size_t begin = 0; begin < in.text.size();) {
    size_t end = begin + 1;
    while (end < in.text.size() && static_cast<unsigned char>(in.text[end]) >= 0x80) ++end;
    const std::string piece =
        NormalForm(std::string_view(in.text).substr(begin, end - begin), kind);
    const bool first_kept =
        !piece.empty() && piece[0] == in.text[begin] && Utf8Length(piece[0]) == 1;
    if (first_kept) {
      out.Append(piece.substr(0, 1), in.IsUser(begin));
      out.Append(piece.substr(1), in.AnyUser(begin + 1, end));
    } else {
      out.Append(piece, in.AnyUser(begin, end));
    }
    begin = end;
  }
  return out;
}

MarkedText Lowercase(const MarkedText& in) {
  MarkedText out{.text = {}, .marks = {}, .user = in.user};
  for (size_t at = 0; at < in.text.size();) {
    const Utf8Step step = StepUtf8(std::string_view(in.text).substr(at));
    std::string lower;
    if (step.value == 0x130) {
      lower = "i\xCC\x87";  // the one character whose lower case is two
    } else {
      AppendUtf8(static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(step.value))),
                 &lower);
    }
    out.Append(lower, in.IsUser(at));
    at += static_cast<size_t>(step.length);
  }
  return out;
}

MarkedText Prepend(const MarkedText& in, const std::string& prefix) {
  if (in.text.empty()) return in;
  MarkedText out;
  // What is put before a user's text alone is the user's: it must not lend its bytes to a control
  // token.
  out.Append(prefix, in.marks.empty() && in.user);
  out.Append(in);
  return out;
}

MarkedText ReplaceRanges(const MarkedText& in, const std::vector<ByteRange>& ranges,
                         const std::string& to) {
  MarkedText out{.text = {}, .marks = {}, .user = in.user};
  size_t at = 0;
  for (const ByteRange& range : ranges) {
    out.Append(in.Slice(at, range.begin));
    out.Append(to, in.AnyUser(range.begin, range.end));
    at = range.end;
  }
  out.Append(in.Slice(at, in.text.size()));
  return out;
}

std::vector<ByteRange> FindLiteral(std::string_view text, std::string_view literal) {
  std::vector<ByteRange> found;
  if (literal.empty()) return found;
  for (size_t at = text.find(literal); at != std::string_view::npos;
       at = text.find(literal, at + literal.size())) {
    found.push_back({static_cast<uint32_t>(at), static_cast<uint32_t>(at + literal.size())});
  }
  return found;
}

MarkedText Strip(const MarkedText& in, bool left, bool right) {
  size_t begin = 0;
  size_t end = in.text.size();
  while (left && begin < end) {
    const Utf8Step step = StepUtf8(std::string_view(in.text).substr(begin));
    if (!IsUnicodeSpace(step.value)) break;
    begin += static_cast<size_t>(step.length);
  }
  while (right && end > begin) {
    const size_t previous = PreviousUtf8(in.text, end);
    if (!IsUnicodeSpace(StepUtf8(std::string_view(in.text).substr(previous)).value)) break;
    end = previous;
  }
  return in.Slice(begin, end);
}

StatusOr<MarkedText> ApplyStep(const NormalizerStep& step, MarkedText text) {
  switch (step.kind) {
    case Kind::kNfc:
    case Kind::kNfd:
    case Kind::kNfkc:
    case Kind::kNfkd:
      return NormalFormMarked(text, step.kind);
    case Kind::kLowercase:
      return Lowercase(text);
    case Kind::kPrepend:
      return Prepend(text, step.to);
    case Kind::kReplace:
      return ReplaceRanges(text, FindLiteral(text.text, step.from), step.to);
    case Kind::kReplaceRegex: {
      std::vector<ByteRange> ranges;
      POLYAD_RETURN_IF_ERROR(step.regex.front().FindAll(text.text, &ranges));
      return ReplaceRanges(text, ranges, step.to);
    }
    case Kind::kStrip:
      return Strip(text, step.left, step.right);
  }
  return Internal("normalizer step %d", static_cast<int>(step.kind));
}

}  // namespace

StatusOr<MarkedText> Normalizer::Normalize(MarkedText text) const {
  const size_t limit = kMaxNormalizerGrowth * (text.text.size() + 64);
  for (const NormalizerStep& step : steps_) {
    POLYAD_ASSIGN_OR_RETURN(text, ApplyStep(step, std::move(text)));
    if (text.text.size() > limit) {
      return InvalidArgument("normalizer: the text grew to %d bytes, limit %d", text.text.size(),
                             limit);
    }
  }
  return text;
}

}  // namespace polyad
