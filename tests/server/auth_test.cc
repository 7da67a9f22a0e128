#include "server/auth.h"

#include <gtest/gtest.h>

#include "tests/server/serving_fixture.h"

namespace polyad {
namespace {

TEST(AuthTest, WithoutKeysEverybodyIsTheNamelessTenant) {
  const Credentials credentials = Credentials::Parse("", "").value();
  EXPECT_EQ(credentials.Tenant("").value(), "");
  EXPECT_TRUE(credentials.CheckAdmin("").ok());
}

TEST(AuthTest, AKeyNamesItsTenant) {
  const Credentials credentials = Credentials::Parse(kAliceKeyLine, "admin-token").value();
  EXPECT_EQ(credentials.Tenant("Bearer alice-key").value(), "alice");
  EXPECT_EQ(credentials.Tenant("bearer alice-key").value(), "alice");
  for (const char* bad : {"", "Bearer", "Bearer ", "Bearer alice-ke", "Bearer alice-key2",
                          "alice-key", "Basic alice-key", "Bearer admin-token"}) {
    EXPECT_EQ(credentials.Tenant(bad).status().code(), absl::StatusCode::kUnauthenticated) << bad;
  }
  EXPECT_FALSE(credentials.Tenant("Bearer " + std::string(100'000, 'a')).ok());
}

TEST(AuthTest, ATenantsKeyIsNoAdminToken) {
  const Credentials credentials = Credentials::Parse(kAliceKeyLine, " admin-token\n").value();
  EXPECT_TRUE(credentials.CheckAdmin("Bearer admin-token").ok());
  EXPECT_EQ(credentials.CheckAdmin("Bearer alice-key").code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(credentials.CheckAdmin("Bearer wrong").code(), absl::StatusCode::kUnauthenticated);
  EXPECT_EQ(credentials.CheckAdmin("").code(), absl::StatusCode::kUnauthenticated);
}

TEST(AuthTest, KeyFilesHaveCommentsAndStrictLines) {
  EXPECT_TRUE(
      Credentials::Parse("# a comment\n\n" + std::string(kAliceKeyLine), "").value().has_tenants());
  for (const std::string& bad :
       {std::string("alice"), std::string("alice:abc"), ":" + std::string(64, 'a'),
        "a b:" + std::string(64, 'a'), "alice:" + std::string(64, 'g')}) {
    EXPECT_FALSE(Credentials::Parse(bad, "").ok()) << bad;
  }
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
