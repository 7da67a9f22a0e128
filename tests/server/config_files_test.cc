#include "server/config_files.h"

#include <gtest/gtest.h>

#include "server/command.h"
#include "tests/server/test_certificates.h"

namespace polyad {
namespace {

std::string Tenants(const std::string& members) {
  return R"({"tenants": {"a": {)" + members + "}}}";
}

class ConfigFilesTest : public testing::Test {
 protected:
  ConfigFilesTest() {
    folder_.WritePair(authority_.SignServer());
    config_.model = "m";
  }

  // Both commands say the same.
  void ExpectRefused(const std::string& part) {
    const Status status = ReadConfigFiles(config_).status();
    EXPECT_FALSE(status.ok());
    EXPECT_NE(std::string(status.message()).find(part), std::string::npos) << status;
    EXPECT_EQ(Check(), kExitUsage);
  }
  int Check() const {
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    const std::string file = folder_.Write("config.json", ConfigAsJson(config_));
    const int code = RunCheckConfig({"--config", file});
    const std::string out = testing::internal::GetCapturedStdout();
    const std::string error = testing::internal::GetCapturedStderr();
    EXPECT_EQ(out.empty(), code != kExitOk) << out;
    EXPECT_EQ(std::count(error.begin(), error.end(), '\n'), code == kExitOk ? 0 : 1) << error;
    return code;
  }

  const TestAuthority authority_{"authority"};
  const PemFolder folder_;
  ServerConfig config_;
};

TEST_F(ConfigFilesTest, NothingIsNamedAndNothingIsRead) {
  const auto files = ReadConfigFiles(config_);
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_EQ(files->tls, nullptr);
  EXPECT_FALSE(files->collector.has_value());
  EXPECT_EQ(Check(), kExitOk);
}

TEST_F(ConfigFilesTest, TheAdaptersFileIsReadWhole) {
  config_.adapters_from = folder_.Write("adapters.json", R"({"adapters": [
      {"name": "a", "uri": "x", "aliases": ["b"]}]})");
  EXPECT_EQ(Check(), kExitUsage) << "nowhere to load from";
  config_.adapter_roots = {"/adapters"};
  const auto files = ReadConfigFiles(config_);
  ASSERT_TRUE(files.ok()) << files.status();
  ASSERT_TRUE(files->adapters.has_value());
  EXPECT_EQ(files->adapters->adapters.size(), 1);
  EXPECT_EQ(Check(), kExitOk);
  folder_.Write("adapters.json", R"({"adapters": [{"name": "a", "uri": ""}]})");
  ExpectRefused("adapters-from: adapter 'a': uri");
  folder_.Write("adapters.json", R"({"adapters": [{"name": "a"}, {"name": "a"}]})");
  ExpectRefused("'a': declared twice");
  config_.adapters_from = folder_.Path("nowhere");
  ExpectRefused("adapters-from");
}

TEST_F(ConfigFilesTest, WhatIsNamedIsRead) {
  config_.tls_cert = folder_.Path("cert.pem");
  config_.tls_key = folder_.Path("key.pem");
  config_.admin_token_file = folder_.Write("admin", "an-administrators-token");
  config_.otlp_endpoint = "http://127.0.0.1:4318";
  const auto files = ReadConfigFiles(config_);
  ASSERT_TRUE(files.ok()) << files.status();
  ASSERT_NE(files->tls, nullptr);
  EXPECT_TRUE(files->credentials.admin.has_value());
  EXPECT_EQ(files->collector->port, "4318");
  EXPECT_EQ(Check(), kExitOk);
}

TEST_F(ConfigFilesTest, ATenantsFileThatServeWouldRefuseIsRefused) {
  config_.tenants_file = folder_.Path("absent.json");
  ExpectRefused("tenants-file");
  config_.tenants_file = folder_.Write("tenants.json", "{");
  ExpectRefused("tenants file");
  folder_.Write("tenants.json", Tenants(R"("keys": ["no digest"])"));
  ExpectRefused("tenant 'a': keys[0]");
  const std::string identity = R"("identities": ["cn:a"])";
  folder_.Write("tenants.json", Tenants(identity));
  ExpectRefused("identities: expected --tls-client-ca");
}

TEST_F(ConfigFilesTest, ACertificateThatServeWouldRefuseIsRefused) {
  config_.tls_cert = folder_.Path("cert.pem");
  config_.tls_key = folder_.Path("absent.pem");
  ExpectRefused("tls-key");
  config_.tls_key = folder_.Write("key.pem", authority_.SignServer().key);  // another's
  ExpectRefused("tls-key: expected the key of tls-cert");
  folder_.WritePair(authority_.SignServer());
  config_.tls_client_ca = folder_.Write("ca.pem", "no certificate");
  ExpectRefused("tls-client-ca");
}

TEST_F(ConfigFilesTest, ACollectorThatServeWouldRefuseIsRefused) {
  config_.otlp_endpoint = "https://collector";
  ExpectRefused("otlp");
}

}  // namespace
}  // namespace polyad
