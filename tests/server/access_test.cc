// Every route and every RPC against every kind of caller: the whole table. covers: server/access.cc
// server/adapter_visibility.cc

#include "server/access.h"

#include <google/protobuf/descriptor.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>

#include "polyad/v1/adapter_admin.grpc.pb.h"
#include "polyad/v1/inference.grpc.pb.h"
#include "server/adapter_watch.h"
#include "server/admin_service.h"
#include "server/grpc_server.h"
#include "server/grpc_service.h"
#include "server/http/http_server.h"
#include "server/http_api.h"
#include "tests/server/raw_client.h"
#include "tests/server/serving_fixture.h"

namespace polyad {
namespace {

// Alice has an adapter of her own; Bob is the other tenant.
struct Callers {
  template <typename Value>
  struct Of {
    Value nobody, unknown, alice, bob, metrics, admin;
  };
  static constexpr Of<const char*> kHeaders = {"",
                                               "Bearer wrong",
                                               "Bearer alice-key",
                                               "Bearer bob-key",
                                               "Bearer metrics-token",
                                               "Bearer admin-token"};
};

struct AccessTest : testing::Test {
  explicit AccessTest(const std::string& admin_token)
      : fixture(kTenantsFile, admin_token, "metrics-token") {
    LoadAdapterSpec spec;
    spec.name = "pirate";
    spec.allowed_tenants = {"alice"};
    EXPECT_TRUE(fixture.registry.Load(spec, [](LoadState) {}).ok());
  }
  ServingFixture fixture;
};

struct HttpAccessTest : AccessTest {
  explicit HttpAccessTest(const std::string& admin_token = "admin-token")
      : AccessTest(admin_token),
        api(fixture.serving),
        server(HttpServer::Start({.listen = "127.0.0.1:0", .limits = {}}, fixture.clock,
                                 [this](const auto& exchange) { api.Handle(exchange); })
                   .value()) {}
  std::string Ask(const std::string& method, const std::string& path, const std::string& body,
                  const std::string& authorization) {
    const std::string fields =
        authorization.empty() ? "" : "Authorization: " + authorization + "\r\n";
    return polyad::Ask(server->address(),
                       method == "GET" ? Get(path, fields) : Post(path, body, fields));
  }

  HttpApi api;
  std::unique_ptr<HttpServer> server;
};

TEST_F(HttpAccessTest, EveryRouteAsksForItsOwnCredential) {
  struct Case {
    const char* method;
    const char* path;
    const char* body;
    Callers::Of<int> expected;
  };
  constexpr char kPrompt[] = R"({"prompt": "x"})";
  constexpr char kChat[] = R"({"messages": [{"role": "user", "content": "x"}]})";
  constexpr char kInput[] = R"({"input": "x"})";
  constexpr char kTokens[] = R"({"tokens": [1]})";
  constexpr char kLoad[] = R"({"lora_name": "a", "lora_path": "p"})";
  constexpr char kUnload[] = R"({"lora_name": "nobody"})";
  const std::vector<Case> cases = {
      {"GET", "/", "", {200, 200, 200, 200, 200, 200}},
      {"GET", "/health", "", {200, 200, 200, 200, 200, 200}},
      {"GET", "/ready", "", {200, 200, 200, 200, 200, 200}},
      {"GET", "/version", "", {200, 200, 200, 200, 200, 200}},
      {"GET", "/openapi.json", "", {200, 200, 200, 200, 200, 200}},
      {"GET", "/metrics", "", {401, 401, 403, 403, 200, 200}},
      {"GET", "/v1/status", "", {401, 401, 200, 200, 403, 403}},
      {"GET", "/v1/models", "", {401, 401, 200, 200, 403, 403}},
      {"GET", "/v1/models/pirate", "", {401, 401, 200, 404, 403, 403}},
      {"POST", "/v1/completions", kPrompt, {401, 401, 200, 200, 403, 403}},
      {"POST", "/v1/chat/completions", kChat, {401, 401, 200, 200, 403, 403}},
      {"POST", "/v1/embeddings", kInput, {401, 401, 200, 200, 403, 403}},
      {"POST", "/tokenize", kPrompt, {401, 401, 200, 200, 403, 403}},
      {"POST", "/detokenize", kTokens, {401, 401, 200, 200, 403, 403}},
      {"POST", "/v1/load_lora_adapter", kLoad, {401, 401, 403, 403, 403, 200}},
      {"POST", "/v1/unload_lora_adapter", kUnload, {401, 401, 403, 403, 403, 404}}};
  std::set<std::pair<std::string, std::string>> seen;
  for (const Case& one : cases) {
    const auto status = [&](const char* authorization) {
      return StatusOf(Ask(one.method, one.path, one.body, authorization));
    };
    const auto& headers = Callers::kHeaders;
    EXPECT_EQ(status(headers.nobody), one.expected.nobody) << one.path;
    EXPECT_EQ(status(headers.unknown), one.expected.unknown) << one.path;
    EXPECT_EQ(status(headers.alice), one.expected.alice) << one.path;
    EXPECT_EQ(status(headers.bob), one.expected.bob) << one.path;
    EXPECT_EQ(status(headers.metrics), one.expected.metrics) << one.path;
    EXPECT_EQ(status(headers.admin), one.expected.admin) << one.path;
    const std::string path = one.path;
    seen.emplace(one.method, path == "/v1/models/pirate" ? "/v1/models/{id}" : path);
  }
  std::set<std::pair<std::string, std::string>> routes;
  for (const HttpApi::Route& route : HttpApi::Routes()) routes.emplace(route.method, route.path);
  EXPECT_EQ(seen, routes) << "every route is in the table above";
  for (const AccessRule& rule : AccessRules()) {
    if (rule.method != kRpc) {
      EXPECT_TRUE(routes.contains({std::string(rule.method), std::string(rule.path)})) << rule.path;
    }
  }
}

// What --insecure lets through: a listener beyond this machine, and no admin token.
struct BeyondHttpAccessTest : HttpAccessTest {
  BeyondHttpAccessTest() : HttpAccessTest("") { fixture.serving.reaches.http = Reach::kBeyond; }
};

TEST_F(BeyondHttpAccessTest, NobodyAdministersWithoutAToken) {
  const std::string load = R"({"lora_name": "a", "lora_path": "p"})";
  const std::string unload = R"({"lora_name": "pirate"})";
  for (const char* header : {"", "Bearer wrong", "Bearer alice-key", "Bearer metrics-token"}) {
    const std::string refusal = Ask("POST", "/v1/load_lora_adapter", load, header);
    EXPECT_EQ(StatusOf(refusal), 403) << header;
    EXPECT_NE(refusal.find("--admin-token-file"), std::string::npos) << refusal;
    EXPECT_EQ(StatusOf(Ask("POST", "/v1/unload_lora_adapter", unload, header)), 403) << header;
  }
  EXPECT_TRUE(fixture.registry.Get("pirate").ok());
  EXPECT_FALSE(fixture.registry.Get("a").ok());
  EXPECT_EQ(StatusOf(Ask("GET", "/v1/models", "", "Bearer alice-key")), 200);
  fixture.serving.reaches.http = Reach::kThisMachine;
  EXPECT_EQ(StatusOf(Ask("POST", "/v1/load_lora_adapter", load, "")), 200);
}

TEST_F(HttpAccessTest, WhatIsNoRouteIsNotServedToAnybody) {
  for (const char* header : {"", "Bearer alice-key", "Bearer admin-token"}) {
    for (const char* path : {"//", "/index.html", "/v1", "/v1/load_lora_adapter/", "/v1//models",
                             "/admin", "/metrics/", "/V1/models", "/v1/models%2f"}) {
      EXPECT_EQ(StatusOf(Ask("GET", path, "", header)), 404) << path;
    }
    EXPECT_EQ(StatusOf(Ask("POST", "/v1/models", "{}", header)), 405);
    EXPECT_EQ(StatusOf(Ask("GET", "/v1/load_lora_adapter", "", header)), 405);
  }
}

TEST_F(HttpAccessTest, AForeignAdapterIsToldAsAnAbsentOne) {
  const auto model = [&](const std::string& name, const std::string& key) {
    std::string answer = Ask("GET", "/v1/models/" + name, "", "Bearer " + key);
    const size_t date = answer.find("Date: ");
    if (date != std::string::npos) answer.erase(date, answer.find("\r\n", date) - date);
    return answer;
  };
  EXPECT_EQ(model("pirate", "bob-key"), model("absent", "bob-key"));
  EXPECT_EQ(Ask("GET", "/v1/models", "", "Bearer bob-key").find("pirate"), std::string::npos);
  EXPECT_NE(Ask("GET", "/v1/models", "", "Bearer alice-key").find("pirate"), std::string::npos);
}

struct RpcAccessTest : AccessTest {
  explicit RpcAccessTest(const std::string& admin_token = "admin-token",
                         const GrpcLimits& limits = {})
      : AccessTest(admin_token),
        watch(fixture.registry),
        inference(MakeInferenceService(fixture.serving)),
        admin(MakeAdminService(fixture.serving, watch)),
        data_server(
            GrpcServer::Start("127.0.0.1:0", "polyad.v1.InferenceService", *inference, limits)
                .value()),
        admin_server(
            GrpcServer::Start("127.0.0.1:0", "polyad.v1.AdapterAdminService", *admin, limits)
                .value()) {}

  // Calls with an empty request; an answer that streams is read once and left.
  grpc::StatusCode Call(const std::string& method, const std::string& authorization) {
    const bool is_admin = method.find("Admin") != std::string::npos;
    grpc::GenericStub stub(
        grpc::CreateChannel(is_admin ? admin_server->address() : data_server->address(),
                            grpc::InsecureChannelCredentials()));
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    if (!authorization.empty()) context.AddMetadata("authorization", authorization);
    grpc::CompletionQueue queue;
    void* tag = nullptr;
    bool ok = false;
    const auto call = stub.PrepareCall(&context, method, &queue);
    call->StartCall(nullptr);
    queue.Next(&tag, &ok);
    grpc::Slice nothing;
    grpc::ByteBuffer request(&nothing, 1);
    if (ok) {
      call->WriteLast(request, {}, nullptr);
      queue.Next(&tag, &ok);
    }
    grpc::ByteBuffer response;
    call->Read(&response, nullptr);
    queue.Next(&tag, &ok);
    if (ok && method.find("Watch") != std::string::npos) context.TryCancel();
    while (ok) {
      call->Read(&response, nullptr);
      queue.Next(&tag, &ok);
    }
    grpc::Status status;
    call->Finish(&status, nullptr);
    queue.Next(&tag, &ok);
    return status.error_code();
  }

  AdapterWatch watch;
  std::unique_ptr<grpc::Service> inference;
  std::unique_ptr<grpc::Service> admin;
  std::unique_ptr<GrpcServer> data_server;
  std::unique_ptr<GrpcServer> admin_server;
};

TEST_F(RpcAccessTest, EveryMethodAsksForItsOwnCredential) {
  constexpr auto kOk = grpc::StatusCode::OK;
  constexpr auto kInvalid = grpc::StatusCode::INVALID_ARGUMENT;
  constexpr auto kCancelled = grpc::StatusCode::CANCELLED;
  constexpr auto kUnknown = grpc::StatusCode::UNAUTHENTICATED;
  constexpr auto kDenied = grpc::StatusCode::PERMISSION_DENIED;
  // What those who may call it get for an empty request.
  const std::map<std::string, grpc::StatusCode> allowed = {
      {"/polyad.v1.InferenceService/Generate", kInvalid},
      {"/polyad.v1.InferenceService/Embed", kInvalid},
      {"/polyad.v1.InferenceService/Tokenize", kOk},
      {"/polyad.v1.InferenceService/Detokenize", kOk},
      {"/polyad.v1.InferenceService/ListModels", kOk},
      {"/polyad.v1.AdapterAdminService/LoadAdapter", kInvalid},
      {"/polyad.v1.AdapterAdminService/UnloadAdapter", kInvalid},
      {"/polyad.v1.AdapterAdminService/ListAdapters", kOk},
      {"/polyad.v1.AdapterAdminService/GetAdapter", kInvalid},
      {"/polyad.v1.AdapterAdminService/WatchAdapters", kCancelled},
      {"/polyad.v1.AdapterAdminService/PinAdapter", kInvalid},
      {"/polyad.v1.AdapterAdminService/ShiftTraffic", kInvalid},
      {"/polyad.v1.AdapterAdminService/SetAlias", kInvalid},
      {"/polyad.v1.AdapterAdminService/GetServerInfo", kOk},
      {"/polyad.v1.AdapterAdminService/GetLoad", kOk},
      {"/polyad.v1.AdapterAdminService/Drain", kOk},
      {"/grpc.health.v1.Health/Check", kOk},
      {"/grpc.health.v1.Health/Watch", kCancelled},
      {"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", kOk}};
  size_t num_rules = 0;
  for (const AccessRule& rule : AccessRules()) {
    if (rule.method != kRpc) continue;
    ++num_rules;
    const std::string method(rule.path);
    ASSERT_TRUE(allowed.contains(method)) << method;
    const grpc::StatusCode answer = allowed.at(method);
    const bool is_public = method.starts_with("/grpc.");
    const bool is_admin = method.find("Admin") != std::string::npos;
    const auto& headers = Callers::kHeaders;
    EXPECT_EQ(Call(method, headers.nobody), is_public ? answer : kUnknown) << method;
    EXPECT_EQ(Call(method, headers.unknown), is_public ? answer : kUnknown) << method;
    EXPECT_EQ(Call(method, headers.alice), is_admin ? kDenied : answer) << method;
    EXPECT_EQ(Call(method, headers.bob), is_admin ? kDenied : answer) << method;
    EXPECT_EQ(Call(method, headers.metrics), is_public ? answer : kDenied) << method;
    EXPECT_EQ(Call(method, headers.admin), is_public || is_admin ? answer : kDenied) << method;
  }
  EXPECT_EQ(num_rules, allowed.size());
}

// As beyond this machine, with no admin token.
struct BeyondRpcAccessTest : RpcAccessTest {
  BeyondRpcAccessTest() : RpcAccessTest("", {.has_reflection = false}) {
    fixture.serving.reaches.admin = Reach::kBeyond;
  }
};

TEST_F(BeyondRpcAccessTest, NobodyAdministersWithoutATokenOrIsToldWhatThereIs) {
  constexpr auto kDenied = grpc::StatusCode::PERMISSION_DENIED;
  for (const AccessRule& rule : AccessRules()) {
    const std::string method(rule.path);
    if (rule.method != kRpc) continue;
    const bool is_reflection = method.find("ServerReflection") != std::string::npos;
    if (rule.access != Access::kAdmin && !is_reflection) continue;
    for (const char* header : {"", "Bearer wrong", "Bearer alice-key"}) {
      EXPECT_EQ(Call(method, header), is_reflection ? grpc::StatusCode::UNIMPLEMENTED : kDenied)
          << method << header;
    }
  }
  EXPECT_EQ(Call("/polyad.v1.InferenceService/ListModels", "Bearer alice-key"),
            grpc::StatusCode::OK);
  EXPECT_EQ(Call("/grpc.health.v1.Health/Check", ""), grpc::StatusCode::OK);
  EXPECT_FALSE(fixture.serving.draining.load());
}

TEST_F(RpcAccessTest, EveryMethodThatTheServicesHaveIsInTheTable) {
  size_t num_methods = 0;
  for (const char* name :
       {v1::InferenceService::service_full_name(), v1::AdapterAdminService::service_full_name()}) {
    const auto* service =
        google::protobuf::DescriptorPool::generated_pool()->FindServiceByName(name);
    ASSERT_NE(service, nullptr) << name;
    for (int i = 0; i < service->method_count(); ++i, ++num_methods) {
      EXPECT_TRUE(
          CheckListed(kRpc, std::string("/") + name + "/" + service->method(i)->name()).ok())
          << service->method(i)->name();
    }
  }
  EXPECT_EQ(num_methods, 16u);
}

TEST_F(RpcAccessTest, AMethodOrRouteThatIsNotInTheTableDoesNotStart) {
  EXPECT_EQ(CheckListed("GET", "/nowhere").code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(CheckListed("POST", "/health").code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(GrpcServer::Start("127.0.0.1:0", "polyad.v1.Nothing", *inference, {}).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace polyad
