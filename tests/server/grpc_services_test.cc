// Both gRPC services over a real connection, the engine a fake: streaming, refusals and their
// details, cancels, deadlines, slow readers, hostile messages. covers: server/grpc_service.cc
// server/admin_service.cc server/grpc_server.cc server/grpc_call.cc server/adapter_watch.cc

#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>

#include <cmath>
#include <thread>

#include "google/rpc/status_details.pb.h"
#include "polyad/v1/adapter_admin.grpc.pb.h"
#include "polyad/v1/inference.grpc.pb.h"
#include "server/adapter_watch.h"
#include "server/admin_service.h"
#include "server/embed_call.h"
#include "server/grpc_call.h"
#include "server/grpc_server.h"
#include "server/grpc_service.h"
#include "tests/server/serving_fixture.h"

namespace polyad {
namespace {

struct Servers {
  explicit Servers(const std::string& tenants = "", const std::string& admin_token = "")
      : fixture(tenants, admin_token),
        watch(fixture.registry),
        inference_service(MakeInferenceService(fixture.serving)),
        admin_service(MakeAdminService(fixture.serving, watch)),
        data_server(
            GrpcServer::Start("127.0.0.1:0", "polyad.v1.InferenceService", *inference_service, {})
                .value()),
        admin_server(
            GrpcServer::Start("127.0.0.1:0", "polyad.v1.AdapterAdminService", *admin_service, {})
                .value()),
        channel(grpc::CreateChannel(data_server->address(), grpc::InsecureChannelCredentials())),
        inference(v1::InferenceService::NewStub(channel)),
        admin(v1::AdapterAdminService::NewStub(
            grpc::CreateChannel(admin_server->address(), grpc::InsecureChannelCredentials()))) {}

  ServingFixture fixture;
  AdapterWatch watch;
  std::unique_ptr<grpc::Service> inference_service;
  std::unique_ptr<grpc::Service> admin_service;
  std::unique_ptr<GrpcServer> data_server;
  std::unique_ptr<GrpcServer> admin_server;
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::InferenceService::Stub> inference;
  std::unique_ptr<v1::AdapterAdminService::Stub> admin;
};

struct Answer {
  std::string text;
  std::string request_id;
  int num_finishes = 0;
  grpc::Status status;
};

Answer Generate(Servers& servers, const v1::GenerateRequest& request,
                grpc::ClientContext& context) {
  Answer answer;
  const auto reader = servers.inference->Generate(&context, request);
  v1::GenerateResponse response;
  while (reader->Read(&response)) {
    if (response.has_prompt()) answer.request_id = response.prompt().request_id();
    answer.text += response.delta().text();
    answer.num_finishes += response.has_finish() ? 1 : 0;
  }
  answer.status = reader->Finish();
  return answer;
}

v1::GenerateRequest TextRequest() {
  v1::GenerateRequest request;
  request.set_text("hello");
  return request;
}

google::rpc::Status DetailsOf(const grpc::Status& status) {
  google::rpc::Status details;
  EXPECT_TRUE(details.ParseFromString(status.error_details()));
  return details;
}

TEST(InferenceServiceTest, StreamsTheTokensAndOneFinishPerChoice) {
  Servers servers;
  grpc::ClientContext context;
  v1::GenerateRequest request = TextRequest();
  request.set_request_id("mine");
  const Answer answer = Generate(servers, request, context);
  EXPECT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_EQ(answer.text, "w0 w1 w2 ");
  EXPECT_EQ(answer.request_id, "mine");
  EXPECT_EQ(answer.num_finishes, 1);
  grpc::ClientContext second;
  request.mutable_sampling()->set_n(3);
  EXPECT_EQ(Generate(servers, request, second).num_finishes, 3);
}

TEST(InferenceServiceTest, EqualRequestIdsOfClientsAreDifferentRequests) {
  Servers servers;
  v1::GenerateRequest request = TextRequest();
  request.set_request_id("same");
  grpc::ClientContext first;
  Generate(servers, request, first);
  const std::string one = servers.fixture.engine.last_spec().request_id;
  grpc::ClientContext second;
  Generate(servers, request, second);
  EXPECT_NE(servers.fixture.engine.last_spec().request_id, one);
}

TEST(InferenceServiceTest, ARefusedFieldIsNamedInTheDetails) {
  Servers servers;
  v1::GenerateRequest request = TextRequest();
  request.mutable_sampling()->set_top_p(2);
  grpc::ClientContext context;
  const grpc::Status status = Generate(servers, request, context).status;
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_NE(status.error_message().find("sampling.top_p: expected a number in (0, 1], got 2"),
            std::string::npos);
  const google::rpc::Status details = DetailsOf(status);
  ASSERT_EQ(details.details_size(), 1);
  google::rpc::BadRequest bad;
  ASSERT_TRUE(details.details(0).UnpackTo(&bad));
  EXPECT_EQ(bad.field_violations(0).field(), "sampling.top_p");
}

TEST(InferenceServiceTest, AFullQueueSaysWhenToTryAgain) {
  Servers servers;
  servers.fixture.engine.submit_status = ResourceExhausted("queue: full");
  grpc::ClientContext context;
  const grpc::Status status = Generate(servers, TextRequest(), context).status;
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  google::rpc::RetryInfo retry;
  ASSERT_TRUE(DetailsOf(status).details(0).UnpackTo(&retry));
  EXPECT_GT(retry.retry_delay().seconds(), 0);
}

TEST(InferenceServiceTest, CancellingTheCallCancelsTheRequest) {
  Servers servers;
  servers.fixture.engine.script.forever = true;
  servers.fixture.engine.script.gap_us = 1000;
  grpc::ClientContext context;
  const auto reader = servers.inference->Generate(&context, TextRequest());
  v1::GenerateResponse response;
  ASSERT_TRUE(reader->Read(&response));
  ASSERT_TRUE(reader->Read(&response));
  context.TryCancel();
  while (reader->Read(&response)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(Eventually([&] { return servers.fixture.engine.num_cancels.load() == 1; }));
}

TEST(InferenceServiceTest, TheCallsDeadlineIsTheRequestsDeadline) {
  Servers servers;
  grpc::ClientContext without;
  Generate(servers, TextRequest(), without);
  EXPECT_EQ(servers.fixture.engine.last_spec().deadline_us, 0);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
  const int64_t now_us = servers.fixture.clock.NowMicros();
  Generate(servers, TextRequest(), context);
  const int64_t deadline_us = servers.fixture.engine.last_spec().deadline_us;
  EXPECT_GT(deadline_us, now_us + 50'000'000);
  EXPECT_LE(deadline_us, now_us + 70'000'000);
}

TEST(InferenceServiceTest, ADeadlineThatPassesEndsTheRequest) {
  Servers servers;
  servers.fixture.engine.script.forever = true;
  servers.fixture.engine.script.gap_us = 1000;
  // On a busy machine a short deadline may pass before the server has heard of the call.
  for (int64_t ms = 200; servers.fixture.engine.num_submitted() == 0; ms *= 2) {
    ASSERT_LT(ms, 60'000);
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(ms));
    EXPECT_EQ(Generate(servers, TextRequest(), context).status.error_code(),
              grpc::StatusCode::DEADLINE_EXCEEDED);
  }
  EXPECT_TRUE(Eventually([&] { return servers.fixture.engine.num_cancels.load() > 0; }));
}

TEST(InferenceServiceTest, AClientThatStopsReadingIsGivenUpAndOthersGoOn) {
  Servers servers;
  servers.fixture.engine.script.forever = true;
  servers.fixture.engine.script.text_bytes = 8000;
  grpc::ClientContext context;
  const auto reader = servers.inference->Generate(&context, TextRequest());
  EXPECT_TRUE(Eventually([&] { return servers.fixture.engine.num_refused_events.load() > 0; }));
  servers.fixture.engine.script = {};
  grpc::ClientContext other;
  EXPECT_TRUE(Generate(servers, TextRequest(), other).status.ok());
  v1::GenerateResponse response;
  while (reader->Read(&response)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::ABORTED);
}

// Sends bytes that a generated client would not.
grpc::Status SendRaw(Servers& servers, const std::string& bytes) {
  grpc::GenericStub stub(servers.channel);
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  const grpc::Slice slice(bytes);
  const grpc::ByteBuffer buffer(&slice, 1);
  const auto call =
      stub.PrepareUnaryCall(&context, "/polyad.v1.InferenceService/Generate", buffer, &queue);
  call->StartCall();
  grpc::ByteBuffer response;
  grpc::Status status;
  call->Finish(&response, &status, nullptr);
  void* tag = nullptr;
  bool ok = false;
  queue.Next(&tag, &ok);
  queue.Shutdown();
  return status;
}

TEST(InferenceServiceTest, MalformedBytesAndBadUtf8AreInvalidArguments) {
  Servers servers;
  EXPECT_EQ(SendRaw(servers, "\x22\x02\xff\xfe").error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);  // text = ff fe
  EXPECT_EQ(SendRaw(servers, "\xff\xff\xff").error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(SendRaw(servers, "").error_code(), grpc::StatusCode::INVALID_ARGUMENT);  // no prompt
}

TEST(InferenceServiceTest, OversizedMessagesAreRefusedAndTheConnectionGoesOn) {
  Servers servers;
  v1::GenerateRequest request;
  request.set_text(std::string(5 << 20, 'a'));
  grpc::ClientContext context;
  EXPECT_EQ(Generate(servers, request, context).status.error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
  grpc::ClientContext next;
  EXPECT_TRUE(Generate(servers, TextRequest(), next).status.ok());
}

TEST(InferenceServiceTest, KeysNameTenants) {
  Servers servers(kTenantsFile, "admin-token");
  grpc::ClientContext nobody;
  EXPECT_EQ(Generate(servers, TextRequest(), nobody).status.error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
  grpc::ClientContext alice;
  alice.AddMetadata("authorization", "Bearer alice-key");
  EXPECT_TRUE(Generate(servers, TextRequest(), alice).status.ok());
  EXPECT_EQ(servers.fixture.engine.last_spec().tenant, "alice");
}

TEST(InferenceServiceTest, EmbedsInputsAndNamesWhatItRefuses) {
  Servers servers;
  v1::EmbedRequest request;
  request.set_request_id("mine");
  request.set_pooling(v1::MEAN);
  request.add_inputs()->set_text("abc");
  request.add_inputs()->mutable_token_ids()->add_ids(7);
  v1::EmbedResponse response;
  grpc::ClientContext context;
  const grpc::Status ok = servers.inference->Embed(&context, request, &response);
  ASSERT_TRUE(ok.ok()) << ok.error_message();
  ASSERT_EQ(response.embeddings_size(), 2);
  EXPECT_EQ(response.embeddings(0).values(0), 3);
  EXPECT_EQ(response.embeddings(1).values(0), 1);
  EXPECT_EQ(response.embeddings(1).num_tokens(), 5);
  EXPECT_EQ(response.usage().prompt_tokens(), 10);
  EXPECT_EQ(response.adapter().name(), "base-model");
  EXPECT_EQ(response.request_id(), "mine");
  request.set_dimensions(5);
  grpc::ClientContext second;
  const grpc::Status refused = servers.inference->Embed(&second, request, &response);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  google::rpc::BadRequest bad;
  ASSERT_TRUE(bad.ParseFromString(DetailsOf(refused).details(0).value()));
  EXPECT_EQ(bad.field_violations(0).field(), "dimensions");
}

TEST(InferenceServiceTest, CancellingAnEmbedCancelsItsInputs) {
  Servers servers;
  servers.fixture.engine.script.forever = true;
  servers.fixture.engine.script.gap_us = 1000;
  v1::EmbedRequest request;
  for (int i = 0; i < 50; ++i) request.add_inputs()->set_text("x");
  v1::EmbedResponse response;
  grpc::ClientContext context;
  std::thread leaver([&] {
    Eventually([&] { return servers.fixture.engine.num_submitted() >= kEmbedWindow; });
    context.TryCancel();
  });
  EXPECT_EQ(servers.inference->Embed(&context, request, &response).error_code(),
            grpc::StatusCode::CANCELLED);
  leaver.join();
  EXPECT_TRUE(
      Eventually([&] { return servers.fixture.engine.num_cancels.load() >= kEmbedWindow; }));
  EXPECT_TRUE(Eventually([&] { return servers.fixture.gate.counts().held_bytes == 0; }));
}

TEST(InferenceServiceTest, TokenizesDetokenizesAndLists) {
  Servers servers;
  v1::TokenizeRequest tokenize;
  tokenize.set_text("ab");
  v1::TokenizeResponse tokens;
  grpc::ClientContext first;
  ASSERT_TRUE(servers.inference->Tokenize(&first, tokenize, &tokens).ok());
  EXPECT_EQ(tokens.token_ids_size(), 2);
  v1::DetokenizeRequest detokenize;
  detokenize.add_token_ids(5);
  v1::DetokenizeResponse text;
  grpc::ClientContext second;
  ASSERT_TRUE(servers.inference->Detokenize(&second, detokenize, &text).ok());
  EXPECT_EQ(text.text(), "<5>");
  detokenize.add_token_ids(1000);
  grpc::ClientContext third;
  EXPECT_EQ(servers.inference->Detokenize(&third, detokenize, &text).error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
  v1::ListModelsResponse models;
  grpc::ClientContext fourth;
  ASSERT_TRUE(servers.inference->ListModels(&fourth, {}, &models).ok());
  ASSERT_EQ(models.models_size(), 1);
  EXPECT_EQ(models.models(0).name(), "base-model");
}

std::vector<v1::LoadAdapterResponse> Load(Servers& servers, const std::string& name,
                                          const std::string& uri, grpc::Status& status) {
  v1::LoadAdapterRequest request;
  request.set_name(name);
  request.set_uri(uri);
  grpc::ClientContext context;
  const auto reader = servers.admin->LoadAdapter(&context, request);
  std::vector<v1::LoadAdapterResponse> states;
  for (v1::LoadAdapterResponse response; reader->Read(&response);) states.push_back(response);
  status = reader->Finish();
  return states;
}

TEST(AdminServiceTest, ALoadShowsItsStatesAndEndsWithTheReport) {
  Servers servers;
  grpc::Status status;
  const auto states = Load(servers, "pirate", "p", status);
  EXPECT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(states.size(), 4u);
  EXPECT_EQ(states[0].state(), v1::LoadAdapterResponse::RESOLVING);
  EXPECT_EQ(states[1].state(), v1::LoadAdapterResponse::VERIFYING);
  EXPECT_EQ(states[2].state(), v1::LoadAdapterResponse::LOWERING);
  EXPECT_EQ(states[3].state(), v1::LoadAdapterResponse::RESIDENT);
  EXPECT_FALSE(states[2].has_report());
  EXPECT_EQ(states[3].report().ranks_size(), 2);
}

TEST(AdminServiceTest, ARefusedLoadSaysWhy) {
  Servers servers;
  grpc::Status status;
  EXPECT_EQ(Load(servers, "pirate", "bad", status).size(), 1u);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_NE(status.error_message().find("q_proj.lora_A"), std::string::npos);
  Load(servers, "../pirate", "p", status);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST(AdminServiceTest, AdaptersArePinnedAliasedListedAndUnloaded) {
  Servers servers;
  grpc::Status status;
  Load(servers, "pirate", "p", status);
  v1::PinAdapterRequest pin;
  pin.set_name("pirate");
  pin.set_pinned(true);
  v1::PinAdapterResponse pinned;
  grpc::ClientContext first;
  EXPECT_TRUE(servers.admin->PinAdapter(&first, pin, &pinned).ok());
  v1::SetAliasRequest alias;
  alias.set_alias("captain");
  alias.set_target("pirate");
  v1::SetAliasResponse aliased;
  grpc::ClientContext second;
  EXPECT_TRUE(servers.admin->SetAlias(&second, alias, &aliased).ok());
  v1::GetAdapterRequest get;
  get.set_name("pirate");
  v1::GetAdapterResponse got;
  grpc::ClientContext third;
  ASSERT_TRUE(servers.admin->GetAdapter(&third, get, &got).ok());
  EXPECT_TRUE(got.adapter().pinned());
  EXPECT_EQ(got.adapter().aliases(0), "captain");
  EXPECT_EQ(got.adapter().share(), 1);
  v1::UnloadAdapterRequest unload;
  unload.set_name("pirate");
  v1::UnloadAdapterResponse unloaded;
  for (const auto& [version, code] : {std::pair(0, grpc::StatusCode::INVALID_ARGUMENT),
                                      std::pair(1, grpc::StatusCode::FAILED_PRECONDITION),
                                      std::pair(2, grpc::StatusCode::NOT_FOUND)}) {
    unload.set_version(version);
    grpc::ClientContext context;
    EXPECT_EQ(servers.admin->UnloadAdapter(&context, unload, &unloaded).error_code(), code);
  }
  unload.clear_version();
  grpc::ClientContext fourth;
  EXPECT_TRUE(servers.admin->UnloadAdapter(&fourth, unload, &unloaded).ok());
  grpc::ClientContext fifth;
  EXPECT_EQ(servers.admin->GetAdapter(&fifth, get, &got).error_code(), grpc::StatusCode::NOT_FOUND);
  unload.set_wait_ms(-1);
  grpc::ClientContext sixth;
  EXPECT_EQ(servers.admin->UnloadAdapter(&sixth, unload, &unloaded).error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
}

TEST(AdminServiceTest, AShiftIsCheckedAndPassedOn) {
  Servers servers;
  LoadAdapterSpec spec;
  spec.name = "pirate";
  ASSERT_TRUE(servers.fixture.registry.Load(spec, [](LoadState) {}).ok());
  const auto shift = [&](const std::string& name, int64_t version, std::optional<double> share,
                         std::optional<int64_t> expected) {
    v1::ShiftTrafficRequest request;
    request.set_name(name);
    request.set_version(version);
    if (share) request.set_share(*share);
    if (expected) request.set_expected_version(*expected);
    v1::ShiftTrafficResponse response;
    grpc::ClientContext context;
    return servers.admin->ShiftTraffic(&context, request, &response).error_code();
  };
  constexpr auto kInvalid = grpc::StatusCode::INVALID_ARGUMENT;
  EXPECT_EQ(shift("pi@rate", 1, 0.5, {}), kInvalid);
  EXPECT_EQ(shift("pirate", 0, 0.5, {}), kInvalid);
  EXPECT_EQ(shift("pirate", -1, 0.5, {}), kInvalid);
  EXPECT_EQ(shift("pirate", 1, {}, {}), kInvalid);
  for (const double share : {-0.1, 1.1, double{NAN}, double{INFINITY}, -double{INFINITY}}) {
    EXPECT_EQ(shift("pirate", 1, share, {}), kInvalid) << share;
  }
  EXPECT_EQ(shift("pirate", 1, 0.5, 0), kInvalid);
  EXPECT_EQ(shift("parrot", 1, 0.5, {}), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(shift("pirate", 2, 0.5, 1), grpc::StatusCode::OK);
  const TrafficShift last = servers.fixture.registry.last_shift();
  EXPECT_EQ(last.name, "pirate");
  EXPECT_EQ(last.version, 2);
  EXPECT_EQ(last.share, 0.5);
  EXPECT_EQ(last.expected_version, 1);
}

TEST(AdminServiceTest, WatchersSeeTheListNowAndAfterEachChange) {
  Servers servers;
  grpc::ClientContext context;
  const auto reader = servers.admin->WatchAdapters(&context, {});
  v1::WatchAdaptersResponse response;
  ASSERT_TRUE(reader->Read(&response));
  EXPECT_EQ(response.adapters_size(), 0);
  grpc::Status status;
  Load(servers, "pirate", "p", status);
  ASSERT_TRUE(reader->Read(&response));
  EXPECT_EQ(response.adapters_size(), 1);
  context.TryCancel();
  while (reader->Read(&response)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

TEST(AdminServiceTest, ServerInfoLoadAndDrain) {
  Servers servers;
  servers.fixture.engine.load_snapshot.num_running = 4;
  v1::GetServerInfoResponse info;
  grpc::ClientContext first;
  ASSERT_TRUE(servers.admin->GetServerInfo(&first, {}, &info).ok());
  EXPECT_EQ(info.model().name(), "base-model");
  EXPECT_EQ(info.model().kv_dtype(), "int8");
  EXPECT_EQ(info.model().kv_bytes_per_token(), 12240);
  EXPECT_EQ(info.isa(), "scalar");
  EXPECT_EQ(info.version(), "test");
  EXPECT_EQ(info.model().weight_bytes(), 1000);
  EXPECT_EQ(info.model().embedding_bytes().bits8(), 700);
  EXPECT_EQ(info.model().layer_bytes().bits4(), 300);
  v1::GetLoadResponse load;
  grpc::ClientContext second;
  ASSERT_TRUE(servers.admin->GetLoad(&second, {}, &load).ok());
  EXPECT_EQ(load.num_running(), 4);
  EXPECT_EQ(load.adapter_bytes(), 4096);
  EXPECT_EQ(load.adapter_bytes_by_precision().bf16(), 4000);
  EXPECT_EQ(load.adapter_bytes_by_precision().bits1(), 96);
  v1::DrainResponse drained;
  grpc::ClientContext third;
  ASSERT_TRUE(servers.admin->Drain(&third, {}, &drained).ok());
  EXPECT_TRUE(drained.drained());
  EXPECT_TRUE(servers.fixture.serving.draining.load());
}

TEST(AdminServiceTest, OnlyTheAdminTokenOpensThePort) {
  Servers servers(kTenantsFile, "admin-token");
  const auto ask = [&](const std::string& authorization) {
    grpc::ClientContext context;
    if (!authorization.empty()) context.AddMetadata("authorization", authorization);
    v1::GetLoadResponse response;
    return servers.admin->GetLoad(&context, {}, &response).error_code();
  };
  EXPECT_EQ(ask(""), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(ask("Bearer wrong"), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(ask("Bearer alice-key"), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(ask("Bearer admin-token"), grpc::StatusCode::OK);
  grpc::Status status;
  EXPECT_TRUE(Load(servers, "pirate", "p", status).empty());
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAUTHENTICATED);
}

TEST(GrpcServerTest, APortInUseIsRefused) {
  Servers servers;
  const auto second = GrpcServer::Start(
      servers.data_server->address(), "polyad.v1.AdapterAdminService", *servers.admin_service, {});
  EXPECT_FALSE(second.ok());
}

}  // namespace
}  // namespace polyad
