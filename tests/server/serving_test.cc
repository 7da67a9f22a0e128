// What a request passes on its way to the engine. covers: server/serving.cc

#include "server/serving.h"

#include <gtest/gtest.h>

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
