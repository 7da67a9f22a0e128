#include "engine/text/utf8.h"

#include <utf8proc.h>

namespace polyad {

namespace {

struct LeadByte {
  int num_trailing;
  unsigned char second_min, second_max;
};

// Table 3-7 of the Unicode standard: the second byte's range depends on the first.
LeadByte ClassifyLead(unsigned char lead) {
  if (lead >= 0xC2 && lead <= 0xDF) return {1, 0x80, 0xBF};
  if (lead == 0xE0) return {2, 0xA0, 0xBF};
  if (lead == 0xED) return {2, 0x80, 0x9F};
  if (lead >= 0xE1 && lead <= 0xEF) return {2, 0x80, 0xBF};
  if (lead == 0xF0) return {3, 0x90, 0xBF};
  if (lead >= 0xF1 && lead <= 0xF3) return {3, 0x80, 0xBF};
  if (lead == 0xF4) return {3, 0x80, 0x8F};
  return {0, 0, 0};
}

}  // namespace

Utf8Step StepUtf8(std::string_view rest) {
  const auto lead = static_cast<unsigned char>(rest[0]);
  if (lead < 0x80) return {.value = lead, .length = 1, .valid = true};
  const LeadByte info = ClassifyLead(lead);
  if (info.num_trailing == 0) return {};
  char32_t value = lead & (0x3F >> info.num_trailing);
  for (int i = 1; i <= info.num_trailing; ++i) {
    if (static_cast<size_t>(i) >= rest.size()) return {.length = i, .incomplete = true};
    const auto byte = static_cast<unsigned char>(rest[static_cast<size_t>(i)]);
    const unsigned char low = i == 1 ? info.second_min : 0x80;
    const unsigned char high = i == 1 ? info.second_max : 0xBF;
    if (byte < low || byte > high) return {.length = i};
    value = (value << 6) | (byte & 0x3F);
  }
  return {.value = value, .length = info.num_trailing + 1, .valid = true};
}

bool IsValidUtf8(std::string_view bytes) {
  while (!bytes.empty()) {
    const Utf8Step step = StepUtf8(bytes);
    if (!step.valid) return false;
    bytes.remove_prefix(static_cast<size_t>(step.length));
  }
  return true;
}

std::string SanitizeUtf8(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  while (!bytes.empty()) {
    const Utf8Step step = StepUtf8(bytes);
    out += step.valid ? bytes.substr(0, static_cast<size_t>(step.length)) : kReplacementUtf8;
    bytes.remove_prefix(static_cast<size_t>(step.length));
  }
  return out;
}

void AppendUtf8(char32_t value, std::string* out) {
  if (value < 0x80) {
    out->push_back(static_cast<char>(value));
  } else if (value < 0x800) {
    out->push_back(static_cast<char>(0xC0 | (value >> 6)));
    out->push_back(static_cast<char>(0x80 | (value & 0x3F)));
  } else if (value < 0x10000) {
    out->push_back(static_cast<char>(0xE0 | (value >> 12)));
    out->push_back(static_cast<char>(0x80 | ((value >> 6) & 0x3F)));
    out->push_back(static_cast<char>(0x80 | (value & 0x3F)));
  } else {
    out->push_back(static_cast<char>(0xF0 | (value >> 18)));
    out->push_back(static_cast<char>(0x80 | ((value >> 12) & 0x3F)));
    out->push_back(static_cast<char>(0x80 | ((value >> 6) & 0x3F)));
    out->push_back(static_cast<char>(0x80 | (value & 0x3F)));
  }
}

std::string Utf8FromChar(char32_t value) {
  std::string out;
  AppendUtf8(value, &out);
  return out;
}

size_t PreviousUtf8(std::string_view text, size_t end) {
  size_t begin = end - 1;
  while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) --begin;
  return begin;
}

size_t CountUtf8Chars(std::string_view text) {
  size_t count = 0;
  for (const char c : text) count += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  return count;
}

bool IsUnicodeSpace(char32_t value) {
  if (value < 0x80) return value == ' ' || (value >= 0x09 && value <= 0x0D);
  return value == 0x85 || value == 0xA0 || value == 0x1680 ||
         (value >= 0x2000 && value <= 0x200A) || value == 0x2028 || value == 0x2029 ||
         value == 0x202F || value == 0x205F || value == 0x3000;
}

bool IsPythonSpace(char32_t value) {
  return IsUnicodeSpace(value) || (value >= 0x1C && value <= 0x1F);
}

bool IsWordChar(char32_t value) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(value))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      return value == 0x200C || value == 0x200D || (value >= 0x24B6 && value <= 0x24E9);
  }
}

}  // namespace polyad
