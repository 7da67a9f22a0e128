#include "server/auth.h"

#include <gtest/gtest.h>

#include <ctime>

#include "tests/server/serving_fixture.h"

namespace polyad {
namespace {

Credentials Parsed(const std::string& tenants, const std::string& admin,
                   const std::string& metrics = "") {
  return Credentials(CredentialTable::Parse(tenants, admin, metrics).value());
}

absl::StatusCode Code(const Credentials& credentials, Access access, const std::string& header) {
  return credentials.Authorize(access, Reach::kThisMachine, header).status().code();
}

TEST(AuthTest, WithoutTenantsAndTokensEverybodyIsTheNamelessTenant) {
  const Credentials credentials = Parsed("", "");
  for (Access access : {Access::kPublic, Access::kTenant, Access::kMetrics, Access::kAdmin}) {
    EXPECT_EQ(credentials.Authorize(access, Reach::kThisMachine, "").value(), "");
    EXPECT_EQ(credentials.Authorize(access, Reach::kThisMachine, "Bearer whatever").value(), "");
  }
  EXPECT_EQ(credentials.LimitsOf("")->max_requests, 0);
  EXPECT_EQ(credentials.LimitsOf("")->max_priority, 100);
}

TEST(AuthTest, AdminRoutesThatNothingGuardsAreClosedBeyondThisMachine) {
  const auto ask = [](const Credentials& credentials, Access access, const char* header) {
    return credentials.Authorize(access, Reach::kBeyond, header).status().code();
  };
  const Credentials open = Parsed("", "");
  for (const char* header : {"", "Bearer whatever"}) {
    EXPECT_EQ(ask(open, Access::kAdmin, header), absl::StatusCode::kPermissionDenied);
    for (Access access : {Access::kPublic, Access::kTenant, Access::kMetrics}) {
      EXPECT_EQ(ask(open, access, header), absl::StatusCode::kOk) << "as --insecure allows";
    }
  }
  const Credentials keyed = Parsed(kTenantsFile, "");
  EXPECT_EQ(ask(keyed, Access::kAdmin, "Bearer alice-key"), absl::StatusCode::kPermissionDenied);
  const Credentials guarded = Parsed("", "admin-token");
  EXPECT_EQ(ask(guarded, Access::kAdmin, ""), absl::StatusCode::kUnauthenticated);
  EXPECT_EQ(ask(guarded, Access::kAdmin, "Bearer admin-token"), absl::StatusCode::kOk);
}

TEST(AuthTest, OnlyLoopbackIsThisMachine) {
  for (const char* here : {"127.0.0.1:80", "127.8.8.8:0", "localhost:1", "[::1]:80"}) {
    EXPECT_EQ(ReachOf(here), Reach::kThisMachine) << here;
  }
  for (const char* beyond : {"0.0.0.0:80", "[::]:80", "10.0.0.1:80", "127.example.org:80",
                             "[::ffff:127.0.0.1]:80", "127.0.0.1", ""}) {
    EXPECT_EQ(ReachOf(beyond), Reach::kBeyond) << beyond;
  }
}

TEST(AuthTest, AKeyNamesItsTenant) {
  const Credentials credentials = Parsed(kTenantsFile, "admin-token");
  EXPECT_EQ(credentials.Authorize(Access::kTenant, Reach::kThisMachine, "Bearer alice-key").value(),
            "alice");
  EXPECT_EQ(credentials.Authorize(Access::kTenant, Reach::kThisMachine, "bearer bob-key").value(),
            "bob");
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

PeerIdentity Peer(std::initializer_list<const char*> names, int64_t left_s = 1000) {
  PeerIdentity peer;
  for (const char* name : names) peer.names.push_back(IdentityDigest(name).value());
  peer.expires_unix_s = static_cast<int64_t>(std::time(nullptr)) + left_s;
  return peer;
}

constexpr char kPeersFile[] = R"({"admin_identities": ["uri:spiffe://test/operator"],
  "metrics_identities": ["dns:prometheus.example"],
  "tenants": {"alice": {"identities": ["dns:alice.example", "cn:alice"]},
              "bob": {"identities": ["dns:bob.example"]}}})";

TEST(AuthTest, ACertificateOpensItsOwnDoors) {
  const Credentials credentials = Parsed(kPeersFile, "");
  constexpr auto kOk = absl::StatusCode::kOk;
  constexpr auto kDenied = absl::StatusCode::kPermissionDenied;
  constexpr auto kUnknown = absl::StatusCode::kUnauthenticated;
  struct Case {
    PeerIdentity peer;
    absl::StatusCode tenant;
    absl::StatusCode metrics;
    absl::StatusCode admin;
  };
  for (const Case& one :
       {Case{Peer({}), kUnknown, kUnknown, kUnknown},
        Case{Peer({"dns:carol.example"}), kUnknown, kUnknown, kUnknown},
        Case{Peer({"dns:carol.example", "dns:alice.example"}), kOk, kDenied, kDenied},
        Case{Peer({"dns:alice.example", "cn:alice"}), kOk, kDenied, kDenied},
        Case{Peer({"dns:alice.example"}, -1), kUnknown, kUnknown, kUnknown},
        Case{Peer({"dns:prometheus.example"}), kDenied, kOk, kDenied},
        Case{Peer({"uri:spiffe://test/operator"}), kDenied, kOk, kOk},
        Case{Peer({"dns:alice.example", "dns:bob.example"}), kUnknown, kUnknown, kUnknown},
        Case{Peer({"dns:alice.example", "uri:spiffe://test/operator"}), kUnknown, kUnknown,
             kUnknown}}) {
    const auto code = [&](Access access) {
      return credentials.Authorize(access, Reach::kThisMachine, "", &one.peer).status().code();
    };
    EXPECT_EQ(code(Access::kTenant), one.tenant);
    EXPECT_EQ(code(Access::kMetrics), one.metrics);
    EXPECT_EQ(code(Access::kAdmin), one.admin);
    EXPECT_EQ(code(Access::kPublic), kOk);
  }
  const PeerIdentity alice = Peer({"cn:alice"});
  EXPECT_EQ(credentials.Authorize(Access::kTenant, Reach::kThisMachine, "", &alice).value(),
            "alice");
}

TEST(AuthTest, AHeaderThatIsSentDecidesAlone) {
  const Credentials credentials = Parsed(kTenantsFile, "admin-token");
  const Credentials peers = Parsed(kPeersFile, "admin-token");
  const PeerIdentity bob = Peer({"dns:bob.example"});
  EXPECT_EQ(
      credentials.Authorize(Access::kTenant, Reach::kThisMachine, "Bearer alice-key", &bob).value(),
      "alice");
  for (const char* header : {"Bearer wrong", "Bearer", "Basic x"}) {
    EXPECT_EQ(peers.Authorize(Access::kTenant, Reach::kThisMachine, header, &bob).status().code(),
              absl::StatusCode::kUnauthenticated)
        << header;
  }
  EXPECT_EQ(peers.Authorize(Access::kTenant, Reach::kThisMachine, "Bearer admin-token", &bob)
                .status()
                .code(),
            absl::StatusCode::kPermissionDenied);
  EXPECT_TRUE(
      peers.Authorize(Access::kAdmin, Reach::kThisMachine, "Bearer admin-token", &bob).ok());
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
