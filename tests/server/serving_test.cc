// What a request passes on its way to the engine. covers: server/serving.cc

#include "server/serving.h"

#include <gtest/gtest.h>

#include <functional>

#include "server/adapter_defaults.h"
#include "server/field_error.h"
#include "server/quota_error.h"
#include "tests/server/serving_fixture.h"

namespace polyad {
namespace {

class CountingSink final : public ResponseSink {
 public:
  bool OnEvent(TokenEvent event) override {
    if (std::holds_alternative<FinishEvent>(event)) ++num_finished;
    return true;
  }
  std::atomic<int> num_finished{0};
};

RequestSpec Spec(const std::string& tenant) {
  RequestSpec spec;
  spec.request_id = UniqueRequestId("");
  spec.tenant = tenant;
  spec.prompt = TextPrompt{"hello"};
  spec.stopping.max_tokens = 10;
  return spec;
}

TEST(ServingTest, ATenantsShareComesWithItsRequests) {
  ServingFixture fixture(R"({"tenants": {
    "alice": {"weight": 2.5, "max_sequences": 3, "max_kv_mib": 1}}})");
  const auto sink = std::make_shared<CountingSink>();
  ASSERT_TRUE(SubmitRequest(fixture.serving, Spec("alice"), sink).ok());
  const TenantShare share = fixture.engine.last_spec().share;
  EXPECT_EQ(share.weight, 2500);
  EXPECT_EQ(share.max_sequences, 3);
  EXPECT_EQ(share.max_kv_blocks, (1 << 20) / (12240 * 16));
  EXPECT_TRUE(Eventually([&] { return sink->num_finished == 1; }));
}

// "pirate", version 1, answers in at most 7 tokens and knows its own template.
void LoadPirate(ServingFixture& fixture) {
  v1::AdapterDefaults message;
  message.mutable_stopping()->set_max_tokens(7);
  message.set_system_prompt("Talk like a pirate.");
  message.set_chat_template("{{ messages[0].content }}");
  LoadAdapterSpec spec;
  spec.name = "pirate";
  spec.defaults = MakeAdapterDefaults(message).value();
  ASSERT_TRUE(LoadWithMetrics(fixture.serving, spec, [](LoadState) {}).ok());
}

TEST(ServingTest, ARequestHasTheDefaultsOfTheVersionThatServesIt) {
  ServingFixture fixture;
  LoadPirate(fixture);
  for (const char* model : {"pirate", "pirate@1"}) {
    v1::GenerateRequest request;
    request.set_model(model);
    request.mutable_chat()->add_messages()->set_role("user");
    const auto spec = DecodeRequest(fixture.serving, request, "alice", 1024);
    ASSERT_TRUE(spec.ok()) << spec.status();
    EXPECT_EQ(spec->model, "pirate@1");
    EXPECT_EQ(spec->tenant, "alice");
    EXPECT_EQ(spec->stopping.max_tokens, 7);
    const auto& chat = std::get<ChatPrompt>(spec->prompt);
    ASSERT_EQ(chat.messages.size(), 2u);
    EXPECT_EQ(chat.messages[0].content, "Talk like a pirate.");
    EXPECT_NE(chat.chat_template, nullptr);
  }
}

TEST(ServingTest, TheBaseCompositionsAndOtherAdaptersTakeNoDefaults) {
  ServingFixture fixture;
  LoadPirate(fixture);
  const std::function<void(v1::GenerateRequest&)> kAsks[] = {
      [](auto&) {}, [](auto& request) { request.set_model("base-model"); },
      [](auto& request) { request.set_model("base:base-model"); },
      [](auto& request) { request.set_model("another"); },
      [](auto& request) { request.add_adapters()->set_name("pirate"); }};
  for (const auto& ask : kAsks) {
    v1::GenerateRequest request;
    ask(request);
    request.mutable_chat()->add_messages()->set_role("user");
    const auto spec = DecodeRequest(fixture.serving, request, "", 64);
    ASSERT_TRUE(spec.ok()) << spec.status();
    EXPECT_EQ(spec->stopping.max_tokens, 64);
    EXPECT_EQ(std::get<ChatPrompt>(spec->prompt).messages.size(), 1u);
    EXPECT_EQ(std::get<ChatPrompt>(spec->prompt).chat_template, nullptr);
  }
}

TEST(ServingTest, DefaultsThatCannotBeServedAreRefusedBeforeTheLoad) {
  ServingFixture fixture;
  v1::AdapterDefaults message;
  message.mutable_sampling()->set_temperature(-1);
  LoadAdapterSpec spec;
  spec.name = "pirate";
  spec.defaults = MakeAdapterDefaults(message).value();
  const auto report = LoadWithMetrics(fixture.serving, spec, [](LoadState) {});
  EXPECT_EQ(BlamedField(report.status()), "defaults.sampling.temperature");
  EXPECT_TRUE(fixture.registry.List().empty());
}

TEST(ServingTest, ARequestCountsUntilItsLastChoiceHasEnded) {
  ServingFixture fixture(kTenantsFile);
  fixture.engine.script.forever = true;
  fixture.engine.script.gap_us = 1000;
  const auto sink = std::make_shared<CountingSink>();
  RequestSpec spec = Spec("bob");
  spec.sampling.num_choices = 2;
  const std::string id = spec.request_id;
  ASSERT_TRUE(SubmitRequest(fixture.serving, spec, sink).ok());
  const Status refused = SubmitRequest(fixture.serving, Spec("bob"), sink);
  EXPECT_EQ(BlamedQuota(refused), "max_requests");
  EXPECT_GT(RetryMillis(refused), 0);
  EXPECT_EQ(refused.message().find("alice"), std::string::npos);
  EXPECT_TRUE(SubmitRequest(fixture.serving, Spec("alice"), sink).ok());
  fixture.engine.Cancel(id);
  EXPECT_TRUE(Eventually([&] { return sink->num_finished == 2; }));
  EXPECT_TRUE(SubmitRequest(fixture.serving, Spec("bob"), sink).ok());
  const std::string metrics = fixture.metrics.Render({});
  EXPECT_NE(metrics.find("polyad_quota_refusals_total{quota=\"max_requests\"} 1"),
            std::string::npos);
}

TEST(ServingTest, WhatTheEngineRefusesIsGivenBackAndSaysWhen) {
  ServingFixture fixture(kTenantsFile);
  fixture.engine.submit_status = ResourceExhausted("request queue: full");
  const auto sink = std::make_shared<CountingSink>();
  for (int i = 0; i < 3; ++i) {
    const Status refused = SubmitRequest(fixture.serving, Spec("bob"), sink);
    EXPECT_EQ(refused.message(), "request queue: full");
    EXPECT_EQ(RetryMillis(refused), kDefaultRetryMs);
  }
  EXPECT_EQ(fixture.gate.counts().queued_requests, 0);
  EXPECT_EQ(fixture.gate.counts().held_bytes, 0);
}

TEST(ServingTest, ATenantsPriorityIsTheOperators) {
  ServingFixture fixture(R"({"tenants": {"alice": {}, "bob": {"max_priority": 5}}})");
  const auto sink = std::make_shared<CountingSink>();
  RequestSpec spec = Spec("alice");
  spec.priority = 1;
  EXPECT_EQ(BlamedField(SubmitRequest(fixture.serving, spec, sink)), "priority");
  spec.tenant = "bob";
  EXPECT_TRUE(SubmitRequest(fixture.serving, spec, sink).ok());
  spec.tenant = "carol";  // gone since she was recognised
  EXPECT_EQ(SubmitRequest(fixture.serving, spec, sink).code(), absl::StatusCode::kUnauthenticated);
}

}  // namespace
}  // namespace polyad
