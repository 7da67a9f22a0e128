#include "server/command.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>

#include "server/config_files.h"
#include "server/field_error.h"

namespace polyad {

std::optional<std::string> OwnFlags::Take(std::string_view name) {
  const std::string flag = "--" + std::string(name);
  for (size_t i = 0; i < rest_.size(); ++i) {
    if (rest_[i].starts_with(flag + "=")) {
      std::string value = rest_[i].substr(flag.size() + 1);
      rest_.erase(rest_.begin() + static_cast<std::ptrdiff_t>(i));
      return value;
    }
    if (rest_[i] == flag && i + 1 < rest_.size()) {
      std::string value = rest_[i + 1];
      const auto at = rest_.begin() + static_cast<std::ptrdiff_t>(i);
      rest_.erase(at, at + 2);
      return value;
    }
  }
  return std::nullopt;
}

bool OwnFlags::TakeSwitch(std::string_view name) {
  const auto found = std::find(rest_.begin(), rest_.end(), "--" + std::string(name));
  if (found == rest_.end()) return false;
  rest_.erase(found);
  return true;
}

StatusOr<int64_t> OwnFlags::TakeInt(std::string_view name, int64_t absent, int64_t min,
                                    int64_t max) {
  const auto text = Take(name);
  if (!text.has_value()) return absent;
  int64_t value = 0;
  const char* end = text->data() + text->size();
  const auto result = std::from_chars(text->data(), end, value);
  if (result.ec != std::errc() || result.ptr != end) return FieldError(name, "an integer", *text);
  POLYAD_RETURN_IF_ERROR(CheckRange(name, value, min, max));
  return value;
}

StatusOr<double> OwnFlags::TakeNumber(std::string_view name, double absent, double min,
                                      double max) {
  const auto text = Take(name);
  if (!text.has_value()) return absent;
  char* end = nullptr;
  const double value = std::strtod(text->c_str(), &end);
  if (text->empty() || *end != '\0') return FieldError(name, "a number", *text);
  POLYAD_RETURN_IF_ERROR(CheckRange(name, value, min, max));
  return value;
}

bool WantsHelp(const Arguments& args) {
  return std::any_of(args.begin(), args.end(),
                     [](const std::string& arg) { return arg == "--help" || arg == "-h"; });
}

int PrintError(const Status& status, int exit_code) {
  std::fprintf(stderr, "polyad: %s\n", std::string(status.message()).c_str());
  return exit_code;
}

void ShowProgress(int64_t done, int64_t total) {
  if (isatty(STDERR_FILENO) == 0) return;
  constexpr int64_t kWidth = 40;
  const auto filled = static_cast<int>(done * kWidth / total);
  std::fprintf(stderr, "\r[%-40.*s] %lld/%lld%s", filled,
               "########################################", static_cast<long long>(done),
               static_cast<long long>(total), done == total ? "\n" : "");
}

int RunCheckConfig(const Arguments& args) {
  if (WantsHelp(args)) {
    std::printf(
        "usage: polyad check-config [flags of serve]\n\n"
        "Reads flags, environment and --config FILE as serve does, then the credentials and TLS\n"
        "files that they name, and prints what it would use.\n"
        "Exit codes: 0 fine, 2 something is wrong.\n");
    return kExitOk;
  }
  const auto config = LoadConfig(args, ProcessEnvironment);
  if (!config.ok()) return PrintError(config.status(), kExitUsage);
  if (const Status status = CheckConfig(*config); !status.ok()) {
    return PrintError(status, kExitUsage);
  }
  if (const auto files = ReadConfigFiles(*config); !files.ok()) {
    return PrintError(files.status(), kExitUsage);
  }
  std::fputs(ConfigAsJson(*config).c_str(), stdout);
  return kExitOk;
}

int RunVersion(const Arguments&) {
  std::printf("polyad %s\n", kVersion);
  return kExitOk;
}

}  // namespace polyad
