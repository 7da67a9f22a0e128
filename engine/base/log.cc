#include "engine/base/log.h"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>

namespace polyad {
namespace {

constexpr size_t kMaxLineBytes = 8192;
std::atomic<LogLevel> g_level{LogLevel::kInfo};

std::string_view LevelName(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "debug";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarning:
      return "warning";
    case LogLevel::kError:
      return "error";
  }
  return "error";
}

void AppendEscaped(std::string& out, std::string_view text, size_t budget) {
  static constexpr char kHex[] = "0123456789abcdef";
  for (char raw : text) {
    if (out.size() >= budget) return;
    const auto c = static_cast<unsigned char>(raw);
    if (c == '"' || c == '\\') {
      out.push_back('\\');
      out.push_back(raw);
    } else if (c < 0x20 ||
               c >= 0x7f) {  // control and non-ASCII bytes: one escape per byte, never raw
      out += "\\u00";
      out.push_back(kHex[c >> 4]);
      out.push_back(kHex[c & 15]);
    } else {
      out.push_back(raw);
    }
  }
}

}  // namespace

void SetLogLevel(LogLevel level) { g_level.store(level, std::memory_order_relaxed); }

std::string FormatLogLine(int64_t ts_ms, LogLevel level, std::string_view event,
                          std::initializer_list<LogField> fields) {
  std::string line = "{\"ts_ms\":" + std::to_string(ts_ms) + ",\"level\":\"";
  line += LevelName(level);
  line += "\",\"event\":\"";
  AppendEscaped(line, event, 256);
  line += '"';
  for (const LogField& field : fields) {
    if (line.size() + field.key.size() + 64 > kMaxLineBytes) break;
    line += ",\"";
    AppendEscaped(line, field.key, kMaxLineBytes - 48);
    line += field.quoted ? "\":\"" : "\":";
    AppendEscaped(line, field.value, kMaxLineBytes - 16);
    if (field.quoted) line += '"';
  }
  line += '}';
  return line;
}

void Log(LogLevel level, std::string_view event, std::initializer_list<LogField> fields) {
  if (level < g_level.load(std::memory_order_relaxed)) return;
  const int64_t ts_ms = std::chrono::duration_cast<std::chrono::milliseconds>(
                            std::chrono::system_clock::now().time_since_epoch())
                            .count();
  std::string line = FormatLogLine(ts_ms, level, event, fields);
  line += '\n';
  std::fwrite(line.data(), 1, line.size(), stderr);
}

}  // namespace polyad
