#include "server/trace.h"

#include <gtest/gtest.h>

#include <set>

#include "server/request_log.h"
#include "tests/server/serving_fixture.h"

namespace polyad {
namespace {

constexpr char kTrace[] = "0af7651916cd43dd8448eb211c80319c";
constexpr char kSpan[] = "b7ad6b7169203331";

TEST(TraceTest, GoesOnWithTheCallersTrace) {
  const std::string head = std::string(kTrace) + "-" + kSpan + "-";
  for (const std::string& parent :
       {"00-" + head + "01", "00-" + head + "00", "01-" + head + "09-x"}) {
    const TraceContext trace = MakeTrace(parent);
    EXPECT_EQ(trace.trace_id, kTrace) << parent;
    EXPECT_EQ(trace.parent_id, kSpan) << parent;
    EXPECT_EQ(trace.span_id.size(), 16u);
    EXPECT_NE(trace.span_id, kSpan);
  }
}

TEST(TraceTest, WhatIsNotWellFormedBeginsANewTrace) {
  const std::string trace = kTrace;
  const std::string span = kSpan;
  for (const std::string& parent :
       {std::string(), "00-" + trace + "-" + span, "00-" + trace + "-" + span + "-01-x",
        "00-" + trace + "-" + span + "-0g", "ff-" + trace + "-" + span + "-01",
        "00-" + std::string(32, '0') + "-" + span + "-01",
        "00-" + trace + "-" + std::string(16, '0') + "-01",
        "00-" + trace.substr(1) + "G-" + span + "-01", "00_" + trace + "-" + span + "-01",
        "01-" + trace + "-" + span + "-01x", std::string(5000, '-')}) {
    const TraceContext made = MakeTrace(parent);
    EXPECT_NE(made.trace_id, trace) << parent;
    EXPECT_EQ(made.trace_id.size(), 32u);
    EXPECT_EQ(made.trace_id.find_first_not_of("0123456789abcdef"), std::string::npos);
    EXPECT_EQ(made.parent_id, "");
  }
}

TEST(TraceTest, NewTracesDiffer) {
  std::set<std::string> seen;
  for (int i = 0; i < 1000; ++i) {
    seen.insert(MakeTrace("").trace_id);
    seen.insert(MakeTrace("").span_id);
  }
  EXPECT_EQ(seen.size(), 2000u);
}

class CountingSink final : public ResponseSink {
 public:
  bool OnEvent(TokenEvent event) override {
    if (std::holds_alternative<FinishEvent>(event)) finished.store(true);
    return true;
  }
  std::atomic<bool> finished{false};
};

TEST(RequestLogTest, ARequestIsOneLineWithItsTraceAndNothingThatWasSaid) {
  ServingFixture fixture;
  testing::internal::CaptureStderr();
  RequestSpec spec;
  spec.request_id = "mine-1";
  spec.tenant = "";
  spec.prompt = TextPrompt{"a secret"};
  spec.sampling.num_choices = 2;
  spec.trace = {kTrace, kSpan, "00f067aa0ba902b7"};
  const auto sink = std::make_shared<CountingSink>();
  ASSERT_TRUE(SubmitRequest(fixture.serving, spec, sink).ok());
  EXPECT_TRUE(Eventually([&] { return sink->finished.load(); }));
  EXPECT_TRUE(Eventually([&] { return fixture.gate.counts().held_bytes == 0; }));
  const std::string log = testing::internal::GetCapturedStderr();
  for (const char* part :
       {R"("event":"request")", R"("request_id":"mine-1")", R"("adapter":"base-model")",
        R"("reason":"stop")", R"("completion_tokens":6)", R"("prompt_tokens":5)",
        R"("trace_id":"0af7651916cd43dd8448eb211c80319c")", R"("parent_id":"b7ad6b7169203331")",
        R"("span_id":"00f067aa0ba902b7")", R"("queue_ms":)"}) {
    EXPECT_NE(log.find(part), std::string::npos) << part << " in " << log;
  }
  EXPECT_EQ(log.find("secret"), std::string::npos);
  EXPECT_EQ(log.find("\"event\":\"request\""), log.rfind("\"event\":\"request\""));
}

}  // namespace
}  // namespace polyad
