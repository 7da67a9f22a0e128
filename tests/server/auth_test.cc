#include "server/auth.h"

#include <gtest/gtest.h>

#include "tests/server/serving_fixture.h"

namespace polyad {
namespace {

Credentials Parsed(const std::string& tenants, const std::string& admin,
                   const std::string& metrics = "") {
  return Credentials(CredentialTable::Parse(tenants, admin, metrics).value());
}

absl::StatusCode Code(const Credentials& credentials, Access access, const std::string& header) {
  return credentials.Authorize(access, header).status().code();
}

TEST(AuthTest, WithoutTenantsAndTokensEverybodyIsTheNamelessTenant) {
  const Credentials credentials = Parsed("", "");
  for (Access access : {Access::kPublic, Access::kTenant, Access::kMetrics, Access::kAdmin}) {
    EXPECT_EQ(credentials.Authorize(access, "").value(), "");
    EXPECT_EQ(credentials.Authorize(access, "Bearer whatever").value(), "");
  }
  EXPECT_EQ(credentials.LimitsOf("")->max_requests, 0);
  EXPECT_EQ(credentials.LimitsOf("")->max_priority, 100);
}

TEST(AuthTest, AKeyNamesItsTenant) {
  const Credentials credentials = Parsed(kTenantsFile, "admin-token");
  EXPECT_EQ(credentials.Authorize(Access::kTenant, "Bearer alice-key").value(), "alice");
  EXPECT_EQ(credentials.Authorize(Access::kTenant, "bearer bob-key").value(), "bob");
  EXPECT_EQ(credentials.LimitsOf("bob")->max_requests, 1);
  for (const std::string& bad :
       {std::string(), std::string("Bearer"), std::string("Bearer "),
        std::string("Bearer alice-ke"), std::string("Bearer alice-key2"), std::string("alice-key"),
        std::string("Basic alice-key"), "Bearer " + std::string(100'000, 'a')}) {
    EXPECT_EQ(Code(credentials, Access::kTenant, bad), absl::StatusCode::kUnauthenticated) << bad;
  }
}

TEST(AuthTest, EachKindOfKeyOpensItsOwnDoors) {
  const Credentials credentials = Parsed(kTenantsFile, " admin-token\n", "metrics-token");
  constexpr auto kOk = absl::StatusCode::kOk;
  constexpr auto kDenied = absl::StatusCode::kPermissionDenied;
  struct Case {
    const char* header;
    absl::StatusCode tenant;
    absl::StatusCode metrics;
    absl::StatusCode admin;
  };
  constexpr auto kUnknown = absl::StatusCode::kUnauthenticated;
  for (const Case& one :
       {Case{"", kUnknown, kUnknown, kUnknown}, Case{"Bearer wrong", kUnknown, kUnknown, kUnknown},
        Case{"Bearer alice-key", kOk, kDenied, kDenied},
        Case{"Bearer metrics-token", kDenied, kOk, kDenied},
        Case{"Bearer admin-token", kDenied, kOk, kOk}}) {
    EXPECT_EQ(Code(credentials, Access::kTenant, one.header), one.tenant) << one.header;
    EXPECT_EQ(Code(credentials, Access::kMetrics, one.header), one.metrics) << one.header;
    EXPECT_EQ(Code(credentials, Access::kAdmin, one.header), one.admin) << one.header;
    EXPECT_EQ(Code(credentials, Access::kPublic, one.header), kOk) << one.header;
  }
}

TEST(AuthTest, ReplacedCredentialsCountAtOnce) {
  Credentials credentials = Parsed(kTenantsFile, "admin-token");
  credentials.Replace(CredentialTable::Parse(R"({"tenants": {"carol": {}}})", "next").value());
  EXPECT_EQ(Code(credentials, Access::kTenant, "Bearer alice-key"),
            absl::StatusCode::kUnauthenticated);
  EXPECT_EQ(Code(credentials, Access::kAdmin, "Bearer next"), absl::StatusCode::kOk);
  EXPECT_EQ(credentials.LimitsOf("alice").status().code(), absl::StatusCode::kUnauthenticated);
  EXPECT_TRUE(credentials.LimitsOf("carol").ok());
}

TEST(AuthTest, ATokenIsNobodysKey) {
  EXPECT_FALSE(CredentialTable::Parse(kTenantsFile, "alice-key").ok());
  EXPECT_FALSE(CredentialTable::Parse(kTenantsFile, "", "bob-key").ok());
  EXPECT_FALSE(CredentialTable::Parse("", " \n").ok());
}

TEST(AuthTest, LoopbackIsRecognised) {
  for (const char* host : {"127.0.0.1", "127.1.2.3", "localhost", "::1", "[::1]"})
    EXPECT_TRUE(IsLoopback(host));
  for (const char* host :
       {"0.0.0.0", "10.0.0.1", "::", "127.0.0.1.evil.example", "localhost.example", ""}) {
    EXPECT_FALSE(IsLoopback(host)) << host;
  }
}

}  // namespace
}  // namespace polyad
