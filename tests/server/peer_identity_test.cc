#include "server/tls/peer_identity.h"

#include <gtest/gtest.h>

#include <ctime>

#include "tests/server/test_certificates.h"

namespace polyad {
namespace {

std::vector<Digest> Names(std::initializer_list<const char*> identities) {
  std::vector<Digest> names;
  for (const char* one : identities) names.push_back(IdentityDigest(one).value());
  return names;
}

PeerIdentity Of(const CertificateOptions& options) {
  static const TestAuthority authority("authority");
  return IdentityOfPem(authority.Sign(options).certificate);
}

TEST(PeerIdentityTest, AlternativeNamesCountAndTheCommonNameOnlyWithoutThem) {
  EXPECT_EQ(Of({.common_name = "gateway", .names = ""}).names, Names({"cn:gateway"}));
  EXPECT_EQ(
      Of({.common_name = "gateway", .names = "DNS:Gate.Example,URI:spiffe://acme/gate"}).names,
      Names({"dns:gate.example", "uri:spiffe://acme/gate"}));
  EXPECT_EQ(Of({.common_name = "gateway", .names = "IP:10.0.0.1,email:a@b.example"}).names,
            Names({"cn:gateway"}))
      << "other kinds of names are no identities";
  EXPECT_TRUE(Of({.common_name = "", .names = ""}).names.empty());
}

TEST(PeerIdentityTest, NamesOfDifferentKindsAreDifferent) {
  EXPECT_NE(IdentityDigest("dns:acme").value(), IdentityDigest("cn:acme").value());
  EXPECT_NE(IdentityDigest("uri:acme").value(), IdentityDigest("cn:acme").value());
  EXPECT_EQ(IdentityDigest("dns:ACME.example").value(), IdentityDigest("dns:acme.example").value());
  EXPECT_NE(IdentityDigest("cn:ACME").value(), IdentityDigest("cn:acme").value());
  EXPECT_NE(IdentityDigest("uri:A").value(), IdentityDigest("uri:a").value());
}

TEST(PeerIdentityTest, WhatIsNoIdentityIsRefused) {
  for (const std::string& bad :
       {std::string(), std::string("acme"), std::string("dns:"), std::string("ip:1.2.3.4"),
        std::string("CN:acme"), std::string("cn:a\0b", 6), "cn:" + std::string(513, 'a')}) {
    EXPECT_FALSE(IdentityDigest(bad).ok()) << bad;
  }
  EXPECT_TRUE(IdentityDigest("cn:" + std::string(512, 'a')).ok());
}

TEST(PeerIdentityTest, ACertificateWithTooManyOrTooLongNamesHasNone) {
  std::string names = "DNS:a0";
  for (size_t i = 1; i < kMaxPeerNames; ++i) names += ",DNS:a" + std::to_string(i);
  EXPECT_EQ(Of({.common_name = "", .names = names}).names.size(), kMaxPeerNames);
  EXPECT_TRUE(Of({.common_name = "", .names = names + ",DNS:more"}).names.empty());
  const std::string uri(kMaxIdentityBytes + 1, 'u');
  EXPECT_TRUE(Of({.common_name = "cn", .names = "DNS:fine,URI:x:" + uri}).names.empty());
}

TEST(PeerIdentityTest, ItEndsWithItsCertificate) {
  const auto now = static_cast<int64_t>(std::time(nullptr));
  EXPECT_NEAR(
      static_cast<double>(Of({.common_name = "a", .names = "", .end_s = 500}).expires_unix_s),
      static_cast<double>(now + 500), 30);
}

TEST(PeerIdentityTest, WhatIsNoCertificateHasNoNames) {
  for (const char* pem :
       {"", "garbage", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"}) {
    EXPECT_TRUE(IdentityOfPem(pem).names.empty());
    EXPECT_EQ(IdentityOfPem(pem).expires_unix_s, 0);
  }
}

}  // namespace
}  // namespace polyad
