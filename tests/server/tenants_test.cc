#include "server/tenants.h"

#include <gtest/gtest.h>

namespace polyad {
namespace {

const std::string kKey(64, 'a');
const std::string kOtherKey(64, 'b');

std::string MessageOf(const std::string& json) {
  return std::string(TenantTable::Parse(json).status().message());
}

TEST(TenantsTest, NoErrorQuotesWhatMayBeAKeysDigest) {
  const std::string digest(64, 'a');
  for (const std::string& text :
       {"\"t" + digest + "\"", "{\"tenants\": " + digest + "}",
        "{\"tenants\": {\"acme\": \"" + digest + "\"}}", "{\"" + digest + "\": 1}"}) {
    const auto table = TenantTable::Parse(text);
    ASSERT_FALSE(table.ok()) << text;
    EXPECT_EQ(table.status().message().find(digest), std::string::npos) << text;
  }
}

TEST(TenantsTest, ATenantHasKeysAndLimitsAndTheRestFromTheDefaults) {
  const TenantTable table = TenantTable::Parse(
                                R"({"defaults": {"max_requests": 8, "weight": 0.5}, "tenants": {
        "alice": {"keys": [")" + kKey +
                                R"("], "weight": 2.5, "tokens_per_second": 100},
        "bob": {"keys": [")" + kOtherKey +
                                R"("], "max_queued": 3, "burst_tokens": 7, "max_sequences": 2,
                "max_kv_mib": 64, "max_adapter_mib": 9, "max_priority": -5}}})")
                                .value();
  EXPECT_EQ(table.num_tenants(), 2u);
  EXPECT_EQ(table.num_keys(), 2u);
  const TenantLimits& alice = *table.Find("alice");
  EXPECT_EQ(alice.weight, 2500);
  EXPECT_EQ(alice.max_requests, 8);
  EXPECT_EQ(alice.burst(), 1000);
  EXPECT_EQ(alice.max_priority, 0);
  const TenantLimits& bob = *table.Find("bob");
  EXPECT_EQ(bob.weight, 500);
  EXPECT_EQ(bob.max_queued, 3);
  EXPECT_EQ(bob.burst(), 7);
  EXPECT_EQ(bob.max_sequences, 2);
  EXPECT_EQ(bob.max_kv_mib, 64);
  EXPECT_EQ(bob.max_adapter_mib, 9);
  EXPECT_EQ(bob.max_priority, -5);
  EXPECT_EQ(table.Find("carol"), nullptr);
  Digest digest;
  digest.fill(0xaa);
  EXPECT_EQ(*table.FindByKey(digest), "alice");
  digest.fill(0xbb);
  EXPECT_EQ(*table.FindByKey(digest), "bob");
  digest.fill(0xcc);
  EXPECT_EQ(table.FindByKey(digest), nullptr);
}

TEST(TenantsTest, AFileWithAMistakeIsRefusedByTheTenantAndTheMember) {
  const auto tenant = [](const std::string& members) {
    return R"({"tenants": {"alice": {)" + members + "}}}";
  };
  for (const auto& [json, blamed] : std::vector<std::pair<std::string, std::string>>{
           {"", "tenants file"},
           {"[]", "tenants file"},
           {"{}", "at least one tenant"},
           {R"({"tenants": {}})", "at least one tenant"},
           {R"({"tenants": {"alice": {}}, "tenant": 1})", "'tenant'"},
           {R"({"tenants": {"al ice": {}}})", "expected a name"},
           {R"({"tenants": {"alice": []}})", "tenant 'alice'"},
           {R"({"tenants": {"alice": {}, "alice": {}}})", "duplicate key"},
           {R"({"defaults": {"keys": []}, "tenants": {"alice": {}}})", "'keys'"},
           {tenant(R"("weigth": 1)"), "'weigth'"},
           {tenant(R"("weight": 0)"), "'weight'"},
           {tenant(R"("weight": 1001)"), "'weight'"},
           {tenant(R"("weight": "1")"), "'weight'"},
           {tenant(R"("max_requests": -1)"), "'max_requests'"},
           {tenant(R"("max_requests": 1.5)"), "'max_requests'"},
           {tenant(R"("max_priority": 101)"), "'max_priority'"},
           {tenant(R"("tokens_per_second": 1e30)"), "'tokens_per_second'"},
           {tenant(R"("keys": "x")"), "'keys'"},
           {tenant(R"("keys": ["short"])"), "keys[0]"},
           {tenant(R"("identities": "dns:x")"), "'identities'"},
           {tenant(R"("identities": ["dns:x", "x"])"), "identities[1]"},
           {tenant(R"("identities": ["dns:x", "dns:X"])"), "identities[1]"},
           {R"({"tenants": {"alice": {"identities": ["cn:x"]}, "bob": {"identities": ["cn:x"]}}})",
            "tenant 'bob': identities[0]: expected an identity of one owner"},
           {R"({"admin_identities": ["cn:x"], "tenants": {"alice": {"identities": ["cn:x"]}}})",
            "admin_identities[0]"},
           {R"({"admin_identities": ["cn:x"], "metrics_identities": ["cn:x"],
                "tenants": {"alice": {}}})",
            "metrics_identities[0]"},
           {R"({"defaults": {"identities": []}, "tenants": {"alice": {}}})", "'identities'"},
           {tenant(R"("keys": [")" + kKey + R"(", ")" + std::string(64, 'g') + R"("])"), "keys[1]"},
           {R"({"tenants": {"alice": {"keys": [")" + kKey + R"("]}, "bob": {"keys": [")" + kKey +
                R"("]}}})",
            "one of 'alice'"}}) {
    EXPECT_FALSE(TenantTable::Parse(json).ok()) << json;
    EXPECT_NE(MessageOf(json).find(blamed), std::string::npos) << json << " -> " << MessageOf(json);
  }
}

// Not even a short one, that is no digest, in a place of another type.
TEST(TenantsTest, AMessageNeverQuotesAKeyItself) {
  for (const std::string secret : {"sk-live-4711", "hunter2", "keyring", "1234567"}) {
    for (const std::string& json :
         {"\"" + secret + "\"", secret, R"({"tenants": ")" + secret + "\"}",
          R"({"tenants": {"alice": ")" + secret + "\"}}",
          R"({"tenants": {"alice": {"keys": ")" + secret + "\"}}}",
          R"({"tenants": {"alice": {"keys": {")" + secret + R"(": 1}}}})",
          R"({"tenants": {"alice": {"identities": [")" + secret + R"("]}}})",
          R"({"tenants": {"alice": {"weight": ")" + secret + "\"}}}",
          R"({"tenants": {"alice": {"weight": -)" +
              std::string(secret == "1234567" ? secret : "7") + "}}}",
          R"({"tenants": {"alice": {")" + secret + "\": 1}}}", R"({")" + secret + "\": 1}",
          R"({"tenants": {"alice": {"keys": [")" + secret + R"(" ")" + secret + "\"]}}}",
          R"({"tenants": {"alice": {}, ")" + secret + R"(": {}, ")" + secret + "\": {}}}",
          R"({"defaults": {")" + secret + R"(": 1}, "tenants": {"alice": {}}})"}) {
      EXPECT_FALSE(TenantTable::Parse(json).ok()) << json;
      EXPECT_EQ(MessageOf(json).find(secret), std::string::npos) << MessageOf(json);
    }
  }
}

TEST(TenantsTest, AMessageNeverQuotesWhatMayBeAKey) {
  const std::string secret = "sk-" + std::string(61, '7');
  for (const std::string& json :
       {R"({"tenants": {")" + secret + R"(": {"x": 1}}})", R"({")" + secret + R"(": 1})",
        R"({"tenants": {"alice": {"keys": [")" + secret + R"("]}}})",
        R"({"tenants": {"alice": {")" + secret + R"(": 1}}})"}) {
    EXPECT_FALSE(TenantTable::Parse(json).ok());
    EXPECT_EQ(MessageOf(json).find(secret), std::string::npos) << MessageOf(json);
  }
}

}  // namespace
}  // namespace polyad
