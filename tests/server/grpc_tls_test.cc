#include "server/grpc_tls.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <gtest/gtest.h>

#include "polyad/v1/inference.grpc.pb.h"
#include "server/grpc_server.h"
#include "server/grpc_service.h"
#include "tests/server/serving_fixture.h"
#include "tests/server/tls_client.h"

namespace polyad {
namespace {

constexpr char kTenants[] = R"({"tenants": {
  "alice": {"keys": ["72ee9d4355ccb9d3a4c9dbf37382e38e75c1b1a225b5bd1f729ee91bbda30c20"],
            "identities": ["dns:alice.example", "uri:spiffe://test/alice"]},
  "bob": {"identities": ["cn:bob"]}}})";

class GrpcTlsTest : public testing::Test {
 protected:
  GrpcTlsTest() {
    folder_.WritePair(authority_.SignServer());
    folder_.Write("ca.pem", clients_.pem());
    LoadSpec("of-alice", "alice");
    LoadSpec("of-bob", "bob");
  }
  void LoadSpec(const std::string& name, const std::string& tenant) {
    LoadAdapterSpec spec;
    spec.name = name;
    spec.allowed_tenants = {tenant};
    EXPECT_TRUE(fixture_.registry.Load(spec, [](LoadState) {}).ok());
  }
  std::shared_ptr<const TlsMaterial> Load(bool required) const {
    return TlsMaterial::Load({folder_.Path("cert.pem"), folder_.Path("key.pem"),
                              folder_.Path("ca.pem"), required})
        .value();
  }
  void Start(bool required = false) { StartWith(Load(required)); }
  void StartWith(std::shared_ptr<const TlsMaterial> material) {
    store_ = std::make_unique<TlsStore>(std::move(material));
    inference_ = MakeInferenceService(fixture_.serving);
    server_ = GrpcServer::Start("127.0.0.1:0", "polyad.v1.InferenceService", *inference_, {},
                                store_.get())
                  .value();
  }
  // The adapter that the caller sees, or the code of what it gets instead.
  std::string Sees(const PemPair& own, const std::string& key = "",
                   const std::string& authority = "") {
    grpc::SslCredentialsOptions options;
    options.pem_root_certs = authority.empty() ? authority_.pem() : authority;
    options.pem_private_key = own.key;
    options.pem_cert_chain = own.certificate;
    grpc::ChannelArguments arguments;  // a connection of its own
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    const auto stub = v1::InferenceService::NewStub(
        grpc::CreateCustomChannel(server_->address(), grpc::SslCredentials(options), arguments));
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    if (!key.empty()) context.AddMetadata("authorization", "Bearer " + key);
    v1::ListModelsResponse response;
    const grpc::Status status = stub->ListModels(&context, {}, &response);
    if (!status.ok()) return std::to_string(status.error_code());
    std::string seen;
    for (const auto& model : response.models()) {
      if (model.name() != "base-model") seen += model.name();
    }
    return seen;
  }
  PemPair Client(const std::string& common_name, const std::string& names = "") const {
    return clients_.Sign({.common_name = common_name, .names = names});
  }

  static inline const std::string kUnauthenticated =
      std::to_string(grpc::StatusCode::UNAUTHENTICATED);
  static inline const std::string kUnavailable = std::to_string(grpc::StatusCode::UNAVAILABLE);

  const TestAuthority authority_{"authority"};
  const TestAuthority clients_{"clients"};
  const PemFolder folder_;
  ServingFixture fixture_{kTenants};
  std::unique_ptr<TlsStore> store_;
  std::unique_ptr<grpc::Service> inference_;
  std::unique_ptr<GrpcServer> server_;
};

TEST_F(GrpcTlsTest, ACertificateIsItsTenants) {
  Start();
  EXPECT_EQ(Sees(Client("x", "DNS:Alice.Example")), "of-alice");
  EXPECT_EQ(Sees(Client("bob", "URI:spiffe://test/alice")), "of-alice");
  EXPECT_EQ(Sees(Client("bob")), "of-bob");
  EXPECT_EQ(Sees(Client("bob", "DNS:nobody.example")), kUnauthenticated)
      << "the common name counts only where there is no other";
  EXPECT_EQ(Sees(Client("alice.example")), kUnauthenticated);
  EXPECT_EQ(Sees(Client("carol")), kUnauthenticated);
  EXPECT_EQ(Sees({}), kUnauthenticated);
}

TEST_F(GrpcTlsTest, AKeyThatIsSentDecides) {
  Start();
  EXPECT_EQ(Sees({}, "alice-key"), "of-alice");
  EXPECT_EQ(Sees(Client("bob"), "alice-key"), "of-alice");
  EXPECT_EQ(Sees(Client("bob"), "wrong"), kUnauthenticated);
}

TEST_F(GrpcTlsTest, AForeignAuthorityOrAnExpiredCertificateDoesNotConnect) {
  Start();
  EXPECT_EQ(Sees(authority_.Sign({.common_name = "bob", .names = ""})), kUnavailable);
  EXPECT_EQ(Sees(clients_.Sign({.common_name = "bob", .names = "", .begin_s = -20, .end_s = -10})),
            kUnavailable);
  EXPECT_EQ(Sees({}, "alice-key", clients_.pem()), kUnavailable) << "the client's own check";
}

TEST_F(GrpcTlsTest, WhereOneIsRequiredAKeyIsNotEnough) {
  Start(true);
  EXPECT_EQ(Sees({}, "alice-key"), kUnavailable);
  EXPECT_EQ(Sees(Client("anybody"), "alice-key"), "of-alice");
}

TEST_F(GrpcTlsTest, WithoutAuthoritiesNobodyIsAskedForACertificate) {
  StartWith(
      TlsMaterial::Load({folder_.Path("cert.pem"), folder_.Path("key.pem"), "", false}).value());
  EXPECT_EQ(Sees({}, "alice-key"), "of-alice");
  EXPECT_EQ(Sees({}), kUnauthenticated);
  EXPECT_EQ(Sees(Client("bob")), kUnauthenticated);
  EXPECT_EQ(Sees(authority_.Sign({.common_name = "bob", .names = ""})), kUnauthenticated)
      << "the server's own certificate is no authority";
}

TEST_F(GrpcTlsTest, PlainConnectionsAndOldVersionsAreRefused) {
  Start();
  const auto stub = v1::InferenceService::NewStub(
      grpc::CreateChannel(server_->address(), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  v1::ListModelsResponse response;
  EXPECT_EQ(stub->ListModels(&context, {}, &response).error_code(), grpc::StatusCode::UNAVAILABLE);
  TlsClientOptions options{.authority = authority_.pem(), .protocols = "\x02h2"};
  EXPECT_TRUE(TlsClient(server_->address(), options).connected());
  options.max_version = TLS1_1_VERSION;
  EXPECT_FALSE(TlsClient(server_->address(), options).connected());
}

TEST_F(GrpcTlsTest, TheNextHandshakeHasTheNewCertificateAndTheNewAuthorities) {
  Start();
  const auto serial = [&] {
    return TlsClient(server_->address(), {.authority = authority_.pem(), .protocols = "\x02h2"})
        .serial();
  };
  const long before = serial();
  EXPECT_EQ(Sees(Client("bob")), "of-bob");
  const TestAuthority others("others");
  folder_.Write("ca.pem", others.pem());
  folder_.WritePair(authority_.SignServer());
  store_->Replace(Load(false));
  EXPECT_GT(serial(), before);
  EXPECT_EQ(Sees(Client("bob")), kUnavailable);
  EXPECT_EQ(Sees(others.Sign({.common_name = "bob", .names = ""})), "of-bob");
}

}  // namespace
}  // namespace polyad
