// Any bytes as a configuration file: what is accepted has every value within its knob's bounds and
// reads back as itself, and what is refused says so in a line of bounded length.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "engine/base/check.h"
#include "server/config.h"

namespace {

using polyad::Knob;
using polyad::ServerConfig;

constexpr size_t kMaxMessageBytes = 4096;

bool IsChoice(std::string_view choices, const std::string& value) {
  const std::string all = "|" + std::string(choices) + "|";
  return all.find("|" + value + "|") != std::string::npos;
}

void CheckKnob(const Knob& knob, const ServerConfig& config) {
  if (const auto* number = std::get_if<int64_t ServerConfig::*>(&knob.field)) {
    POLYAD_CHECK(config.**number >= knob.min && config.**number <= knob.max, knob.name);
  }
  if (const auto* text = std::get_if<std::string ServerConfig::*>(&knob.field)) {
    POLYAD_CHECK(knob.choices[0] == '\0' || IsChoice(knob.choices, config.**text), knob.name);
  }
}

void CheckStatus(const polyad::Status& status) {
  if (status.ok()) return;
  POLYAD_CHECK(status.code() == absl::StatusCode::kInvalidArgument ||
                   status.code() == absl::StatusCode::kResourceExhausted,
               "a wrong file is its writer's");
  POLYAD_CHECK(!status.message().empty() && status.message().size() <= kMaxMessageBytes,
               "a message of some length");
  POLYAD_CHECK(status.message().find('\n') == std::string_view::npos, "of one line");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  ServerConfig config;
  const polyad::Status applied = polyad::ApplyConfigFile(text, config);
  CheckStatus(applied);
  if (!applied.ok()) return 0;
  for (const Knob& knob : polyad::Knobs()) CheckKnob(knob, config);
  CheckStatus(polyad::CheckConfig(config));
  const std::string written = polyad::ConfigAsJson(config);
  ServerConfig again;
  POLYAD_CHECK(polyad::ApplyConfigFile(written, again).ok(), "what is written can be read");
  POLYAD_CHECK(polyad::ConfigAsJson(again) == written, "and says the same");
  return 0;
}
