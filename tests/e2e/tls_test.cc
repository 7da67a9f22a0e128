// The real program behind TLS, with certificates that the test makes: renewal under load,
// strangers, expired ones, another tenant's, plain HTTP, and what it refuses to start with. covers:
// server/command_serve.cc

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "polyad/v1/adapter_admin.grpc.pb.h"
#include "polyad/v1/inference.grpc.pb.h"
#include "tests/e2e/server_process.h"
#include "tests/server/tls_client.h"

namespace polyad {
namespace {

const std::string kGolden = std::string(POLYAD_SOURCE_DIR) + "/tests/golden";
// alice's key is "alice-key".
constexpr char kTenants[] = R"({"admin_identities": ["uri:spiffe://test/operator"], "tenants": {
  "alice": {"keys": ["72ee9d4355ccb9d3a4c9dbf37382e38e75c1b1a225b5bd1f729ee91bbda30c20"],
            "identities": ["dns:alice.example"]},
  "bob": {"identities": ["cn:bob"]}}})";
constexpr char kAsk[] = R"({"prompt": [5], "max_tokens": 4, "ignore_eos": true})";

class TlsTest : public testing::Test {
 protected:
  TlsTest() {
    folder_.WritePair(authority_.SignServer());
    folder_.Write("ca.pem", clients_.pem());
    folder_.Write("tenants", kTenants);
  }
  std::vector<std::string> Args() const {
    return {
        "--model",         kGolden + "/models/llama",   "--dtype=f32",    "--kv-mib=8",
        "--adapter-root",  kGolden + "/adapters/llama", "--tenants-file", folder_.Path("tenants"),
        "--tls-cert",      folder_.Path("cert.pem"),    "--tls-key",      folder_.Path("key.pem"),
        "--tls-client-ca", folder_.Path("ca.pem")};
  }
  void Start() {
    server_ = std::make_unique<ServerProcess>(Args());
    ASSERT_FALSE(server_->ready_line().empty());
  }
  PemPair Client(const std::string& common_name, const std::string& names = "") const {
    return clients_.Sign({.common_name = common_name, .names = names});
  }
  PemPair Operator() const { return Client("", "URI:spiffe://test/operator"); }

  std::shared_ptr<grpc::Channel> Channel(const std::string& port, const PemPair& own) const {
    grpc::SslCredentialsOptions options;
    options.pem_root_certs = authority_.pem();
    options.pem_private_key = own.key;
    options.pem_cert_chain = own.certificate;
    grpc::ChannelArguments arguments;  // a connection of its own
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    return grpc::CreateCustomChannel(server_->Address(port), grpc::SslCredentials(options),
                                     arguments);
  }
  grpc::Status Generate(const PemPair& own, const std::string& model = "",
                        const std::string& key = "") const {
    const auto stub = v1::InferenceService::NewStub(Channel("grpc", own));
    v1::GenerateRequest request;
    request.set_model(model);
    request.mutable_token_ids()->add_ids(5);
    request.mutable_stopping()->set_max_tokens(4);
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    if (!key.empty()) context.AddMetadata("authorization", "Bearer " + key);
    const auto reader = stub->Generate(&context, request);
    for (v1::GenerateResponse response; reader->Read(&response);) {
    }
    return reader->Finish();
  }
  int Http(const PemPair& own, const std::string& key = "") const {
    return StatusOf(AskTls(
        server_->Address("http"),
        Post("/v1/completions", kAsk, key.empty() ? "" : "Authorization: Bearer " + key + "\r\n"),
        {.authority = authority_.pem(), .own = own}));
  }
  long Serial(const std::string& port) const {
    return TlsClient(server_->Address(port),
                     {.authority = authority_.pem(), .protocols = port == "http" ? "" : "\x02h2"})
        .serial();
  }
  bool HasMetric(const std::string& line) const {
    return AskTls(server_->Address("http"), Get("/metrics"),
                  {.authority = authority_.pem(), .own = Operator()})
               .find("\n" + line + "\n") != std::string::npos;
  }
  template <typename Condition>
  static bool Eventually(Condition condition) {
    for (int i = 0; i < 1000; ++i) {
      if (condition()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    return false;
  }

  const TestAuthority authority_{"authority"};
  const TestAuthority clients_{"clients"};
  const PemFolder folder_;
  std::unique_ptr<ServerProcess> server_;
};

TEST_F(TlsTest, EachCallerIsWhoItsCertificateSays) {
  Start();
  const PemPair alice = Client("", "DNS:alice.example");
  const auto admin = v1::AdapterAdminService::NewStub(Channel("admin", Operator()));
  grpc::ClientContext context;
  v1::LoadAdapterRequest load;
  load.set_name("pirate");
  load.set_uri("plain");
  load.add_allowed_tenants("alice");
  const auto reader = admin->LoadAdapter(&context, load);
  for (v1::LoadAdapterResponse state; reader->Read(&state);) {
  }
  ASSERT_TRUE(reader->Finish().ok());
  EXPECT_TRUE(Generate(alice, "pirate").ok());
  EXPECT_TRUE(Generate({}, "pirate", "alice-key").ok());
  EXPECT_EQ(Generate(Client("bob"), "pirate").error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_TRUE(Generate(Client("bob")).ok());
  EXPECT_EQ(Generate({}).error_code(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(Generate(Operator()).error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(Generate(authority_.Sign({.common_name = "bob", .names = ""})).error_code(),
            grpc::StatusCode::UNAVAILABLE);
  const auto as_alice = v1::AdapterAdminService::NewStub(Channel("admin", alice));
  grpc::ClientContext other;
  v1::GetLoadResponse response;
  EXPECT_EQ(as_alice->GetLoad(&other, {}, &response).error_code(),
            grpc::StatusCode::PERMISSION_DENIED);
}

TEST_F(TlsTest, HttpKnowsTheSameCallers) {
  Start();
  EXPECT_EQ(Http(Client("", "DNS:alice.example")), 200);
  EXPECT_EQ(Http({}, "alice-key"), 200);
  EXPECT_EQ(Http({}), 401);
  EXPECT_EQ(Http(Client("carol")), 401);
  EXPECT_EQ(Http(Client("bob"), "wrong"), 401);
  EXPECT_EQ(Http(Operator()), 403);
  EXPECT_TRUE(HasMetric("polyad_tls_stale 0"));
  EXPECT_EQ(Http(authority_.Sign({.common_name = "bob", .names = ""})), 0) << "another authority";
  EXPECT_EQ(Http(clients_.Sign({.common_name = "bob", .names = "", .begin_s = -9, .end_s = -5})), 0)
      << "expired";
  const std::string plain = Ask(server_->Address("http"), Get("/health"));
  EXPECT_EQ(StatusOf(plain), 400);
  EXPECT_NE(plain.find("this port speaks HTTPS"), std::string::npos);
  // An identity that leaves the file is nobody's at once.
  folder_.Write("tenants", R"({"tenants": {"bob": {"identities": ["cn:bob"]}}})");
  EXPECT_TRUE(Eventually([&] { return Http(Client("", "DNS:alice.example")) == 401; }));
  EXPECT_EQ(Http(Client("bob")), 200);
}

TEST_F(TlsTest, AHundredRenewalsUnderLoadFailNothing) {
  Start();
  constexpr int kRenewals = 100;
  std::atomic<bool> stop{false};
  std::atomic<int> num_asked{0};
  std::atomic<int> num_failed{0};
  std::vector<std::thread> clients;
  for (int i = 0; i < 2; ++i) {
    clients.emplace_back([&, i] {
      const PemPair own = Client("bob");
      while (!stop.load()) {
        const bool ok = i == 0 ? Http(own) == 200 : Generate(own).ok();
        ++num_asked;
        if (!ok) ++num_failed;
      }
    });
  }
  for (int i = 0; i < kRenewals; ++i) {
    const long before = Serial("http");
    folder_.WritePair(authority_.SignServer());
    if (i % 4 != 0) server_->Signal(SIGHUP);  // else it is seen without
    // Both ports show the new one before the next comes.
    for (const char* port : {"http", "grpc"}) {
      EXPECT_TRUE(Eventually([&] { return Serial(port) > before; })) << port << " " << i;
    }
  }
  stop.store(true);
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(num_failed.load(), 0) << "of " << num_asked.load();
  EXPECT_GT(num_asked.load(), kRenewals / 10);
  // A pair that does not fit, or is over, changes nothing and is told.
  for (const PemPair& bad :
       {PemPair{authority_.SignServer().certificate, authority_.SignServer().key},
        authority_.Sign({.common_name = "x", .names = "", .begin_s = -9, .end_s = -5})}) {
    const long serving = Serial("http");
    folder_.WritePair(bad);
    EXPECT_TRUE(Eventually([&] { return HasMetric("polyad_tls_stale 1"); }));
    EXPECT_EQ(Serial("http"), serving);
    EXPECT_EQ(Serial("grpc"), serving);
    folder_.WritePair(authority_.SignServer());
    EXPECT_TRUE(Eventually([&] { return HasMetric("polyad_tls_stale 0"); }));
  }
  EXPECT_EQ(Http(Client("bob")), 200);
}

TEST_F(TlsTest, WhatCannotBeServedDoesNotStart) {
  const auto exit_code = [](const std::vector<std::string>& args) {
    ServerProcess server(args);
    return server.ready_line().empty() ? server.Wait() : 0;
  };
  folder_.Write("key.pem", authority_.SignServer().key);
  EXPECT_EQ(exit_code(Args()), 2) << "the key is another's";
  const PemPair pair = authority_.SignServer();
  folder_.Write("cert.pem", pair.certificate);
  folder_.Write("key.pem", pair.key, 0644);
  EXPECT_EQ(exit_code(Args()), 2) << "anybody may read the key";
  folder_.WritePair(authority_.Sign({.common_name = "x", .names = "", .begin_s = -9, .end_s = -5}));
  EXPECT_EQ(exit_code(Args()), 2) << "expired";
  folder_.WritePair(pair);
  std::vector<std::string> args = Args();
  args.resize(args.size() - 2);
  EXPECT_EQ(exit_code(args), 2) << "identities without an authority";
}

}  // namespace
}  // namespace polyad
