// The page at "/" and what it asks. covers: server/http_page_api.cc server/playground.cc

#include "server/playground.h"

#include <gtest/gtest.h>
#include <openssl/evp.h>

#include <nlohmann/json.hpp>
#include <string>

#include "server/http/http_server.h"
#include "server/http_api.h"
#include "tests/server/raw_client.h"
#include "tests/server/serving_fixture.h"

namespace polyad {
namespace {

using nlohmann::json;

struct PlaygroundTest : testing::Test {
  std::string Ask(const std::string& path, const std::string& key = "") {
    const std::string fields = key.empty() ? "" : "Authorization: Bearer " + key + "\r\n";
    return polyad::Ask(server->address(), Get(path, fields));
  }
  json Status(const std::string& key) {
    const std::string response = Ask("/v1/status", key);
    return json::parse(response.substr(response.find("\r\n\r\n") + 4), nullptr, false);
  }

  ServingFixture fixture{kTenantsFile};
  HttpApi api{fixture.serving};
  std::unique_ptr<HttpServer> server =
      HttpServer::Start({.listen = "127.0.0.1:0", .limits = {}}, fixture.clock,
                        [this](const auto& exchange) { api.Handle(exchange); })
          .value();
};

// OpenSSL's own base64, of OpenSSL's own SHA-256.
std::string HashOf(const std::string& text) {
  unsigned char digest[32];
  EVP_Digest(text.data(), text.size(), digest, nullptr, EVP_sha256(), nullptr);
  unsigned char out[64];
  const int size = EVP_EncodeBlock(out, digest, sizeof(digest));
  return std::string(out, out + size);
}

std::string Between(const std::string& text, const std::string& begin, const std::string& end) {
  const size_t from = text.find(begin) + begin.size();
  return text.substr(from, text.find(end) - from);
}

TEST_F(PlaygroundTest, ThePageIsOneSmallFileThatAsksNobodyElse) {
  const std::string page(PlaygroundPage());
  EXPECT_LT(page.size(), size_t{200} << 10);
  EXPECT_NE(page.find("<!doctype html>"), std::string::npos);
  for (const char* outside : {"http://", "https://", "src=", "<link", "@import", "url(", "//cdn"}) {
    EXPECT_EQ(page.find(outside), std::string::npos) << outside;
  }
  // Inline handlers and styles would not run under the policy.
  for (const char* refused : {" style=\"", " onclick", " onload", "innerHTML", "eval("}) {
    EXPECT_EQ(page.find(refused), std::string::npos) << refused;
  }
}

TEST_F(PlaygroundTest, ItsPolicyAllowsItsOwnScriptAndStyleAndNothingElse) {
  const std::string response = Ask("/");
  const std::string page(PlaygroundPage());
  EXPECT_EQ(StatusOf(response), 200);
  EXPECT_EQ(Between(response, "Content-Security-Policy: ", "\r\nX-Content-Type-Options: nosniff"),
            "default-src 'none'; connect-src 'self'; script-src 'sha256-" +
                HashOf(Between(page, "<script>", "</script>")) + "'; style-src 'sha256-" +
                HashOf(Between(page, "<style>", "</style>")) +
                "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'");
  EXPECT_NE(response.find("\r\nContent-Type: text/html; charset=utf-8\r\n"), std::string::npos);
  EXPECT_TRUE(response.ends_with(page));
}

TEST_F(PlaygroundTest, AStatusIsTheTenantsOwn) {
  LoadAdapterSpec spec;
  spec.name = "hers";
  spec.allowed_tenants = {"alice"};
  ASSERT_TRUE(fixture.registry.Load(spec, [](LoadState) {}).ok());
  fixture.engine.load_snapshot.num_waiting = 77;
  TenantGate::Ask ask;
  ask.tenant = "alice";
  const auto waiting = fixture.gate.Enter(ask).value();
  const auto begun = fixture.gate.Enter(ask).value();
  begun->Begin();
  const json alice = Status("alice-key");
  EXPECT_EQ(alice["requests"], json({{"running", 1}, {"waiting", 1}}));
  EXPECT_EQ(alice["adapters"], json::array({{{"id", "hers"}, {"resident", true}}}));
  EXPECT_EQ(alice["model"], "base-model");
  const json bob = Status("bob-key");
  EXPECT_EQ(bob["requests"], json({{"running", 0}, {"waiting", 0}}));
  EXPECT_EQ(bob["adapters"], json::array());
  EXPECT_EQ(bob.dump().find("77"), std::string::npos) << "the queue is everybody's";
}

TEST_F(PlaygroundTest, HowFullTheCacheIsIsToldInTwentieths) {
  for (const auto& [used, expected] :
       {std::pair(0, 0.0), {1, 0.05}, {50, 0.05}, {51, 0.1}, {1000, 1.0}}) {
    fixture.engine.load_snapshot.num_kv_blocks = 1000;
    fixture.engine.load_snapshot.num_kv_blocks_used = used;
    EXPECT_NEAR(Status("bob-key")["kv_usage"].get<double>(), expected, 1e-9) << used;
  }
  fixture.engine.load_snapshot.num_kv_blocks = 0;
  fixture.engine.load_snapshot.num_kv_blocks_used = 0;
  EXPECT_EQ(Status("bob-key")["kv_usage"], 0);
}

TEST_F(PlaygroundTest, DrainingIsTold) {
  EXPECT_EQ(Status("bob-key")["draining"], false);
  fixture.serving.draining.store(true);
  EXPECT_EQ(Status("bob-key")["draining"], true);
}

}  // namespace
}  // namespace polyad
