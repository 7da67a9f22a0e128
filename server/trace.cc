#include "server/trace.h"

#include <algorithm>
#include <random>
#include <string>

#include "absl/strings/str_format.h"

namespace polyad {
namespace {

constexpr size_t kVersionDigits = 2;
constexpr size_t kTraceDigits = 32;
constexpr size_t kSpanDigits = 16;
constexpr size_t kFlagDigits = 2;
constexpr size_t kLength = kVersionDigits + 1 + kTraceDigits + 1 + kSpanDigits + 1 + kFlagDigits;

bool IsHex(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

bool IsId(std::string_view text) {
  return IsHex(text) && text.find_first_not_of('0') != std::string_view::npos;
}

uint64_t Draw() {
  thread_local std::mt19937_64 random([] {
    std::random_device device;
    return (static_cast<uint64_t>(device()) << 32) | device();
  }());
  uint64_t drawn = 0;
  while (drawn == 0) drawn = random();
  return drawn;
}

// Takes `size` characters off the front, and the dash behind them.
std::string_view Take(std::string_view& rest, size_t size) {
  const std::string_view taken = rest.substr(0, size);
  rest.remove_prefix(std::min(size + 1, rest.size()));
  return taken;
}

bool HasDashes(std::string_view text) {
  return text[kVersionDigits] == '-' && text[kVersionDigits + 1 + kTraceDigits] == '-' &&
         text[kLength - kFlagDigits - 1] == '-';
}

}  // namespace

TraceContext MakeTrace(std::string_view traceparent) {
  TraceContext trace;
  trace.span_id = absl::StrFormat("%016x", Draw());
  if (traceparent.size() >= kLength && HasDashes(traceparent)) {
    std::string_view rest = traceparent;
    const std::string_view version = Take(rest, kVersionDigits);
    const std::string_view trace_id = Take(rest, kTraceDigits);
    const std::string_view parent_id = Take(rest, kSpanDigits);
    const std::string_view flags = Take(rest, kFlagDigits);
    const bool ends =
        traceparent.size() == kLength || (version != "00" && traceparent[kLength] == '-');
    if (IsHex(version) && version != "ff" && IsId(trace_id) && IsId(parent_id) && IsHex(flags) &&
        ends) {
      trace.trace_id = trace_id;
      trace.parent_id = parent_id;
      trace.sampled = (flags.back() >= 'a' ? flags.back() - 'a' + 10 : flags.back() - '0') % 2 == 1;
      return trace;
    }
  }
  trace.trace_id = absl::StrFormat("%016x%016x", Draw(), Draw());
  return trace;
}

}  // namespace polyad
