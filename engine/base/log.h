#pragma once

// One JSON object per line on standard error: {"ts_ms":..., "level":"info",
// "event":"adapter_loaded", "name":"x"}. Values are escaped and each line is at most 8 KiB, so
// outside text can neither forge nor split a line. Prompts and credentials are never logged.
// Thread-safe.

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

namespace polyad {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

struct LogField {
  LogField(std::string_view name, std::string_view text) : key(name), value(text) {}
  LogField(std::string_view name, const char* text) : key(name), value(text) {}
  LogField(std::string_view name, const std::string& text) : key(name), value(text) {}
  LogField(std::string_view name, int64_t number)
      : key(name), value(std::to_string(number)), quoted(false) {}
  LogField(std::string_view name, int number) : LogField(name, static_cast<int64_t>(number)) {}
  LogField(std::string_view name, double number)
      : key(name), value(std::to_string(number)), quoted(false) {}
  std::string_view key;
  std::string value;
  bool quoted = true;
};

void SetLogLevel(LogLevel level);
void Log(LogLevel level, std::string_view event, std::initializer_list<LogField> fields = {});

// The line Log would write, without the newline; separate so that escaping can be tested.
std::string FormatLogLine(int64_t ts_ms, LogLevel level, std::string_view event,
                          std::initializer_list<LogField> fields);

}  // namespace polyad
