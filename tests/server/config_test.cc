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

TEST(ConfigTest, ARefusalIsOneLineWhateverTheNameHolds) {
  ServerConfig config;
  for (const Status& status : {ApplyConfigFile(R"({"a\nb\u001b[31m": 3})", config),
                               ApplyConfigFile(R"({"model": ["a\nb"]})", config),
                               LoadConfig({"--a\nb"}, Environment({})).status(),
                               LoadConfig({"a\nb"}, Environment({})).status()}) {
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(status.message().find('\n'), absl::string_view::npos) << status;
    EXPECT_EQ(status.message().find('\x1b'), absl::string_view::npos) << status;
  }
}

TEST(ConfigTest, FilesOfTheWrongShapeAreRefused) {
  for (const char* bad :
       {"", "[]", "{", R"({"max_queued": "x"})", R"({"max_queued": 1.5})", R"({"max_queued": {}})",
        R"({"prefix_cache": 3})", R"({"max_queued": 0})"}) {
    ServerConfig config;
    EXPECT_FALSE(ApplyConfigFile(bad, config).ok()) << bad;
  }
}

// What is missing for each listener where it alone leaves this machine, with some of TLS, tenants
// and an admin token.
TEST(ConfigTest, ListeningBeyondThisMachineNeedsTlsAndCredentials) {
  for (int given = 0; given < 8; ++given) {
    ServerConfig config;
    config.model = "m";
    if ((given & 1) != 0) config.tls_cert = config.tls_key = "pem";
    if ((given & 2) != 0) config.tenants_file = "tenants";
    if ((given & 4) != 0) config.admin_token_file = "token";
    EXPECT_TRUE(CheckConfig(config).ok()) << "this machine alone asks for nothing";
    struct Listener {
      std::string ServerConfig::*address;
      int needs;
    };
    for (const Listener& listener :
         {Listener{&ServerConfig::grpc_listen, 1 | 2}, Listener{&ServerConfig::admin_listen, 1 | 4},
          Listener{&ServerConfig::http_listen, 1 | 2 | 4}}) {
      for (const char* address : {"0.0.0.0:1", "[::]:1", "10.1.2.3:0"}) {
        ServerConfig beyond = config;
        beyond.*listener.address = address;
        const int missing = listener.needs & ~given;
        const Status status = CheckConfig(beyond);
        EXPECT_EQ(status.ok(), missing == 0) << given << " " << address;
        const auto says = [&](const char* flag) {
          return status.message().find(flag) != absl::string_view::npos;
        };
        EXPECT_EQ(says("--tls-cert"), (missing & 1) != 0);
        EXPECT_EQ(says("--tenants-file"), (missing & 2) != 0);
        EXPECT_EQ(says("--admin-token-file"), (missing & 4) != 0);
        beyond.insecure = true;
        EXPECT_TRUE(CheckConfig(beyond).ok());
      }
    }
  }
  ServerConfig config;
  EXPECT_FALSE(CheckConfig(config).ok()) << "no model";
  config.model = "m";
  config.insecure = true;
  config.http_listen = "nowhere";
  EXPECT_FALSE(CheckConfig(config).ok());
}

TEST(ConfigTest, OnlyListenersOfThisMachineTellWhatServicesThereAre) {
  ServerConfig config;
  EXPECT_TRUE(HasReflection(config, config.grpc_listen));
  EXPECT_FALSE(HasReflection(config, "0.0.0.0:50051"));
  config.grpc_reflection = "on";
  EXPECT_TRUE(HasReflection(config, "0.0.0.0:50051"));
  config.grpc_reflection = "off";
  EXPECT_FALSE(HasReflection(config, config.grpc_listen));
}

TEST(ConfigTest, TlsFilesComeTogether) {
  ServerConfig config;
  config.model = "m";
  config.tls_cert = "cert";
  EXPECT_FALSE(CheckConfig(config).ok());
  config.tls_key = "key";
  EXPECT_TRUE(CheckConfig(config).ok());
  config.tls_require_client_cert = true;
  EXPECT_FALSE(CheckConfig(config).ok());
  config.tls_client_ca = "ca";
  EXPECT_TRUE(CheckConfig(config).ok());
  config.tls_cert.clear();
  EXPECT_FALSE(CheckConfig(config).ok());
  config.tls_key.clear();
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
