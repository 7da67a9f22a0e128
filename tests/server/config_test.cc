#include "server/config.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include "server/command.h"

namespace polyad {
namespace {

EnvironmentLookup Environment(std::map<std::string, std::string> values) {
  return [values = std::move(values)](const std::string& name) -> std::optional<std::string> {
    const auto found = values.find(name);
    if (found == values.end()) return std::nullopt;
    return found->second;
  };
}

std::string WriteFile(const std::string& text) {
  const std::string path = testing::TempDir() + "/config-" + std::to_string(::getpid()) + ".json";
  std::ofstream(path) << text;
  return path;
}

TEST(ConfigTest, FlagBeatsEnvironmentBeatsFileBeatsDefault) {
  const std::string file = WriteFile(R"({"max_queued": 1, "max_running": 2, "threads": 3})");
  const auto config =
      LoadConfig({"--config", file, "--max-queued=100"},
                 Environment({{"POLYAD_MAX_QUEUED", "10"}, {"POLYAD_MAX_RUNNING", "20"}}));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->max_queued, 100);
  EXPECT_EQ(config->max_running, 20);
  EXPECT_EQ(config->threads, 3);
  EXPECT_EQ(config->max_step_tokens, 512);
}

TEST(ConfigTest, FlagsTakeTheirValuesInBothForms) {
  const auto config = LoadConfig({"--model", "m", "--dtype=f32", "--adapter", "a=x",
                                  "--adapter=b=y", "--prefix-cache=false", "--insecure"},
                                 Environment({{"POLYAD_ADAPTER", "c=z"}}));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->model, "m");
  EXPECT_EQ(config->dtype, "f32");
  EXPECT_EQ(config->adapters, (std::vector<std::string>{"a=x", "b=y"}));
  EXPECT_FALSE(config->prefix_cache);
  EXPECT_TRUE(config->insecure);
}

TEST(ConfigTest, EveryNumberIsHeldToItsBounds) {
  for (const Knob& knob : Knobs()) {
    if (!std::holds_alternative<int64_t ServerConfig::*>(knob.field)) continue;
    const std::string flag = std::string("--") + knob.name + "=";
    const auto load = [&](const std::string& value) {
      return LoadConfig({flag + value}, Environment({}));
    };
    EXPECT_TRUE(load(std::to_string(knob.min)).ok()) << knob.name;
    EXPECT_TRUE(load(std::to_string(knob.max)).ok()) << knob.name;
    for (const std::string& bad :
         {std::to_string(knob.min - 1), std::to_string(knob.max + 1), std::string(""),
          std::string("1x"), std::string("nan"), std::string("99999999999999999999")}) {
      const auto refused = load(bad);
      ASSERT_FALSE(refused.ok()) << knob.name << "=" << bad;
      EXPECT_NE(refused.status().message().find(knob.name), absl::string_view::npos);
    }
  }
}

TEST(ConfigTest, UnknownNamesAreRefusedWithTheNearestKnown) {
  const auto flag = LoadConfig({"--max-queed", "3"}, Environment({}));
  EXPECT_NE(flag.status().message().find("did you mean 'max-queued'"), absl::string_view::npos);
  ServerConfig config;
  const Status key = ApplyConfigFile(R"({"max_runing": 3})", config);
  EXPECT_NE(key.message().find("did you mean 'max_running'"), absl::string_view::npos);
  EXPECT_FALSE(LoadConfig({"serve"}, Environment({})).ok());
  EXPECT_FALSE(LoadConfig({"--model"}, Environment({})).ok());
}

TEST(ConfigTest, FilesOfTheWrongShapeAreRefused) {
  for (const char* bad :
       {"", "[]", "{", R"({"max_queued": "x"})", R"({"max_queued": 1.5})", R"({"max_queued": {}})",
        R"({"prefix_cache": 3})", R"({"max_queued": 0})"}) {
    ServerConfig config;
    EXPECT_FALSE(ApplyConfigFile(bad, config).ok()) << bad;
  }
}

TEST(ConfigTest, ListeningBeyondThisMachineNeedsCredentials) {
  ServerConfig config;
  EXPECT_FALSE(CheckConfig(config).ok());  // no model
  config.model = "m";
  EXPECT_TRUE(CheckConfig(config).ok());
  config.grpc_listen = "0.0.0.0:1";
  EXPECT_FALSE(CheckConfig(config).ok());
  config.tenants_file = "tenants";
  EXPECT_TRUE(CheckConfig(config).ok());
  config.http_listen = "0.0.0.0:2";
  EXPECT_FALSE(CheckConfig(config).ok());  // its admin routes would be open
  config.admin_listen = "[::]:3";
  config.admin_token_file = "token";
  EXPECT_TRUE(CheckConfig(config).ok());
  config.tenants_file.clear();
  EXPECT_FALSE(CheckConfig(config).ok());
  config.insecure = true;
  EXPECT_TRUE(CheckConfig(config).ok());
  config.http_listen = "nowhere";
  EXPECT_FALSE(CheckConfig(config).ok());
}

TEST(ConfigTest, AdaptersAreNamedPaths) {
  ServerConfig config;
  config.model = "m";
  for (const char* bad : {"a", "=x", "a=", "a,b=x", "../a=x"}) {
    config.adapters = {bad};
    EXPECT_FALSE(CheckConfig(config).ok()) << bad;
  }
  config.adapters = {"a=x=y"};
  EXPECT_TRUE(CheckConfig(config).ok());
}

TEST(ConfigTest, PrintedConfigReadsBackAsItself) {
  ServerConfig config;
  config.model = "m";
  config.adapters = {"a=x", "b=y"};
  config.max_queued = 7;
  ServerConfig again;
  ASSERT_TRUE(ApplyConfigFile(ConfigAsJson(config), again).ok());
  EXPECT_EQ(ConfigAsJson(again), ConfigAsJson(config));
}

TEST(ConfigTest, EveryKnobHasItsRowInTheDocumentation) {
  std::ifstream file(std::string(POLYAD_SOURCE_DIR) + "/docs/configuration.md");
  std::stringstream text;
  text << file.rdbuf();
  for (const Knob& knob : Knobs()) {
    const std::string row =
        "| `--" + std::string(knob.name) + "` | " + KnobType(knob) + " | " + knob.unit + " | ";
    EXPECT_NE(text.str().find(row), std::string::npos)
        << "docs/configuration.md has no row beginning: " << row;
    EXPECT_NE(text.str().find(knob.doc), std::string::npos) << knob.name;
  }
  EXPECT_NE(KnobHelp().find("--max-queued"), std::string::npos);
}

TEST(CommandTest, OwnFlagsAreTakenOutOfTheArguments) {
  OwnFlags flags({"--prompt", "hi there", "--model=m", "--chat", "--max-tokens=5"});
  EXPECT_EQ(flags.Take("prompt"), "hi there");
  EXPECT_TRUE(flags.TakeSwitch("chat"));
  EXPECT_FALSE(flags.TakeSwitch("chat"));
  EXPECT_EQ(flags.TakeInt("max-tokens", 1, 0, 10).value(), 5);
  EXPECT_EQ(flags.TakeInt("absent", 1, 0, 10).value(), 1);
  EXPECT_EQ(flags.rest(), Arguments{"--model=m"});
  OwnFlags bad({"--n", "x", "--f=nan"});
  EXPECT_FALSE(bad.TakeInt("n", 1, 0, 10).ok());
  EXPECT_FALSE(bad.TakeNumber("f", 1, 0, 10).ok());
}

}  // namespace
}  // namespace polyad
