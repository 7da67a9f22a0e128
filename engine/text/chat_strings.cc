#include "engine/text/chat_strings.h"

#include <utf8proc.h>

#include "engine/text/utf8.h"

namespace polyad {

namespace {

bool IsStripped(std::string_view character, std::optional<std::string_view> chars) {
  if (!chars.has_value()) return IsPythonSpace(StepUtf8(character).value);
  for (size_t at = 0; at < chars->size();) {
    const auto length = static_cast<size_t>(Utf8Length((*chars)[at]));
    if (chars->substr(at, length) == character) return true;
    at += length;
  }
  return false;
}

bool IsCased(char32_t value) {
  const auto c = static_cast<utf8proc_int32_t>(value);
  return utf8proc_tolower(c) != c || utf8proc_toupper(c) != c;
}

void AppendCased(char32_t value, bool upper, std::string* out) {
  if (upper && value == 0xDF) {
    *out += "SS";
  } else if (!upper && value == 0x130) {
    *out += "i\xCC\x87";
  } else {
    const auto c = static_cast<utf8proc_int32_t>(value);
    AppendUtf8(static_cast<char32_t>(upper ? utf8proc_toupper(c) : utf8proc_tolower(c)), out);
  }
}

}  // namespace

MarkedText StripText(const MarkedText& text, bool left, bool right,
                     std::optional<std::string_view> chars) {
  const std::string_view all = text.text;
  size_t begin = 0;
  size_t end = all.size();
  while (left && begin < end) {
    const auto length = static_cast<size_t>(Utf8Length(all[begin]));
    if (!IsStripped(all.substr(begin, length), chars)) break;
    begin += length;
  }
  while (right && end > begin) {
    const size_t previous = PreviousUtf8(all, end);
    if (!IsStripped(all.substr(previous, end - previous), chars)) break;
    end = previous;
  }
  return text.Slice(begin, end);
}

MarkedText ChangeCase(const MarkedText& text, TextCase to) {
  MarkedText out{.text = {}, .user = text.user};
  bool in_word = false;
  for (size_t at = 0; at < text.text.size();) {
    const Utf8Step step = StepUtf8(std::string_view(text.text).substr(at));
    bool upper = to == TextCase::kUpper;
    if (to == TextCase::kCapitalize) upper = at == 0;
    if (to == TextCase::kTitle) upper = !in_word;
    in_word = IsCased(step.value);
    std::string changed;
    AppendCased(step.value, upper, &changed);
    out.Append(changed, text.IsUser(at));
    at += static_cast<size_t>(step.length);
  }
  return out;
}

MarkedText ReplaceText(const MarkedText& text, std::string_view from, const MarkedText& to,
                       int64_t count) {
  MarkedText out{.text = {}, .user = text.user};
  size_t copied = 0;
  for (size_t at = text.text.find(from); at != std::string::npos && count != 0; --count) {
    out.Append(text.Slice(copied, at));
    if (text.AnyUser(at, at + from.size())) {
      out.Append(to.text, true);
    } else {
      out.Append(to);
    }
    copied = at + from.size();
    at = text.text.find(from, copied);
  }
  out.Append(text.Slice(copied, text.text.size()));
  return out;
}

std::vector<MarkedText> SplitText(const MarkedText& text, std::string_view separator,
                                  int64_t max_splits) {
  std::vector<MarkedText> parts;
  size_t at = 0;
  if (separator.empty()) {
    MarkedText rest = StripText(text, true, false, std::nullopt);
    while (!rest.text.empty() && max_splits-- != 0) {
      size_t end = 0;
      while (end < rest.text.size() &&
             !IsPythonSpace(StepUtf8(std::string_view(rest.text).substr(end)).value)) {
        end += static_cast<size_t>(Utf8Length(rest.text[end]));
      }
      parts.push_back(rest.Slice(0, end));
      rest = StripText(rest.Slice(end, rest.text.size()), true, false, std::nullopt);
    }
    if (!rest.text.empty()) parts.push_back(StripText(rest, false, true, std::nullopt));
    return parts;
  }
  for (size_t found = text.text.find(separator); found != std::string::npos && max_splits-- != 0;
       found = text.text.find(separator, at)) {
    parts.push_back(text.Slice(at, found));
    at = found + separator.size();
  }
  parts.push_back(text.Slice(at, text.text.size()));
  return parts;
}

std::vector<MarkedText> SplitLines(const MarkedText& text) {
  std::vector<MarkedText> lines;
  size_t begin = 0;
  for (size_t at = 0; at < text.text.size();) {
    const Utf8Step step = StepUtf8(std::string_view(text.text).substr(at));
    const size_t end = at;
    at += static_cast<size_t>(step.length);
    const bool ends = (step.value >= 0x0A && step.value <= 0x0D) ||
                      (step.value >= 0x1C && step.value <= 0x1E) || step.value == 0x85 ||
                      step.value == 0x2028 || step.value == 0x2029;
    if (!ends) continue;
    if (step.value == '\r' && at < text.text.size() && text.text[at] == '\n') ++at;
    lines.push_back(text.Slice(begin, end));
    begin = at;
  }
  if (begin < text.text.size()) lines.push_back(text.Slice(begin, text.text.size()));
  return lines;
}

std::vector<size_t> CharOffsets(const MarkedText& text) {
  std::vector<size_t> offsets;
  for (size_t at = 0; at < text.text.size(); at += static_cast<size_t>(Utf8Length(text.text[at]))) {
    offsets.push_back(at);
  }
  offsets.push_back(text.text.size());
  return offsets;
}

}  // namespace polyad
