#include "server/tls/tls_material.h"

#include <gtest/gtest.h>

#include <ctime>

#include "tests/server/test_certificates.h"

namespace polyad {
namespace {

class TlsMaterialTest : public testing::Test {
 protected:
  TlsMaterialTest() {
    folder_.WritePair(pair_);
    folder_.Write("ca.pem", authority_.pem());
  }
  TlsPaths Paths() const {
    return {folder_.Path("cert.pem"), folder_.Path("key.pem"), folder_.Path("ca.pem")};
  }
  std::string Refusal() const {
    const auto material = TlsMaterial::Load(Paths());
    return material.ok() ? "" : std::string(material.status().message());
  }

  const TestAuthority authority_{"authority"};
  const PemPair pair_ = authority_.SignServer();
  const PemFolder folder_;
};

TEST_F(TlsMaterialTest, AGoodPairIsTaken) {
  const auto material = TlsMaterial::Load(Paths());
  ASSERT_TRUE(material.ok()) << material.status();
  EXPECT_EQ((*material)->certificate_pem(), pair_.certificate);
  EXPECT_EQ((*material)->client_ca_pem(), authority_.pem());
  EXPECT_NEAR(static_cast<double>((*material)->expires_unix_s()),
              static_cast<double>(std::time(nullptr) + 86'400), 60);
  EXPECT_NE((*material)->context(), nullptr);
}

TEST_F(TlsMaterialTest, AKeyThatOthersMayReadOrChangeIsRefused) {
  for (mode_t mode : {0644, 0604, 0660, 0620, 0601, 0777}) {
    folder_.Write("key.pem", pair_.key, mode);
    EXPECT_NE(Refusal().find("tls-key: expected a file that only its owner and group may read"),
              std::string::npos)
        << std::oct << mode;
  }
  for (mode_t mode : {0600, 0400, 0440, 0640}) {
    folder_.Write("key.pem", pair_.key, mode);
    EXPECT_EQ(Refusal(), "") << std::oct << mode;
  }
}

TEST_F(TlsMaterialTest, WhatDoesNotFitTogetherIsRefusedByTheFileAtFault) {
  const PemPair other = authority_.SignServer();
  const PemPair expired = authority_.Sign(
      {.common_name = "server", .names = "DNS:localhost", .begin_s = -7200, .end_s = -3600});
  const PemPair future = authority_.Sign(
      {.common_name = "server", .names = "DNS:localhost", .begin_s = 3600, .end_s = 7200});
  struct Case {
    const char* file;
    std::string text;
    const char* blamed;
  };
  for (const Case& one : std::initializer_list<Case>{
           {"key.pem", other.key, "tls-key: expected the key of tls-cert"},
           {"key.pem", "", "tls-key: expected a private key"},
           {"key.pem", pair_.certificate, "tls-key: expected a private key"},
           {"key.pem", TestAuthority::LockedKeyPem("secret"), "without a password"},
           {"key.pem", std::string((1 << 20) + 1, 'x'), "tls-key: expected at most"},
           {"cert.pem", "", "tls-cert: expected certificates"},
           {"cert.pem", pair_.key, "tls-cert: expected certificates"},
           {"cert.pem", other.certificate, "tls-key: expected the key of tls-cert"},
           {"cert.pem", expired.certificate, "tls-cert: expected a certificate in force"},
           {"cert.pem", future.certificate, "tls-cert: expected a certificate in force"},
           {"cert.pem", pair_.certificate + expired.certificate,
            "tls-cert: expected a certificate"},
           {"cert.pem", pair_.certificate.substr(0, 200), "tls-cert: certificate 0"},
           {"cert.pem", pair_.certificate + other.certificate.substr(0, 200),
            "tls-cert: certificate 1"},
           {"ca.pem", "", "tls-client-ca"},
           {"ca.pem", "garbage", "tls-client-ca: expected certificates"}}) {
    folder_.Write(one.file, one.text);
    EXPECT_NE(Refusal().find(one.blamed), std::string::npos)
        << one.file << " -> " << Refusal() << ", expected " << one.blamed;
    EXPECT_EQ(Refusal().find("BEGIN"), std::string::npos) << "no message quotes a file";
    folder_.WritePair(pair_);
    folder_.Write("ca.pem", authority_.pem());
  }
  std::filesystem::remove(folder_.Path("key.pem"));
  EXPECT_NE(Refusal().find("tls-key: cannot be opened"), std::string::npos);
  std::filesystem::create_directory(folder_.Path("key.pem"));
  EXPECT_NE(Refusal().find("tls-key: expected a regular file"), std::string::npos);
}

}  // namespace
}  // namespace polyad
