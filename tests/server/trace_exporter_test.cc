#include "server/trace_exporter.h"

#include <gtest/gtest.h>

#include <mutex>
#include <nlohmann/json.hpp>

#include "server/http/http_server.h"
#include "server/trace.h"
#include "tests/server/serving_fixture.h"

namespace polyad {
namespace {

using nlohmann::json;

// Takes posts and answers with a status.
struct Collector {
  explicit Collector(int status) {
    server = HttpServer::Start({.listen = "127.0.0.1:0", .limits = {}}, clock,
                               [this, status](const std::shared_ptr<HttpExchange>& exchange) {
                                 {
                                   std::lock_guard<std::mutex> lock(mutex);
                                   paths.push_back(exchange->request().path);
                                   bodies.push_back(exchange->request().body);
                                 }
                                 exchange->Respond(status, "application/json", "{}");
                               })
                 .value();
  }
  TraceExporter::Endpoint endpoint() const {
    return TraceExporter::ParseEndpoint("http://" + server->address()).value();
  }

  RealClock clock;
  std::mutex mutex;
  std::vector<std::string> paths;
  std::vector<std::string> bodies;
  std::unique_ptr<HttpServer> server;
};

EndedRequest Request() {
  EndedRequest request;
  request.request_id = "mine\"-1";
  request.adapter = {"pirate", 3, "abc"};
  request.trace = {"0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "00f067aa0ba902b7"};
  request.usage = {40, 32, 12};
  request.reason = "stop";
  request.begin_unix_us = 1'700'000'000'000'000;
  request.end_unix_us = 1'700'000'000'250'000;
  return request;
}

TEST(TraceExporterTest, ARequestIsASpan) {
  Collector collector(200);
  {
    TraceExporter exporter(collector.endpoint());
    exporter.Export(Request());
    EndedRequest failed = Request();
    failed.status = DeadlineExceeded("too late");
    failed.trace.parent_id.clear();
    exporter.Export(failed);
    EndedRequest unsampled = Request();
    unsampled.trace.sampled = false;
    exporter.Export(unsampled);
    EXPECT_TRUE(Eventually([&] { return exporter.num_exported() == 2; }));
  }
  ASSERT_EQ(collector.paths.size(), 1u);
  EXPECT_EQ(collector.paths[0], "/v1/traces");
  const json body = json::parse(collector.bodies[0]);
  const json& spans = body["resourceSpans"][0]["scopeSpans"][0]["spans"];
  ASSERT_EQ(spans.size(), 2u);
  EXPECT_EQ(spans[0]["traceId"], "0af7651916cd43dd8448eb211c80319c");
  EXPECT_EQ(spans[0]["parentSpanId"], "b7ad6b7169203331");
  EXPECT_EQ(spans[0]["startTimeUnixNano"], "1700000000000000000");
  EXPECT_EQ(spans[0]["endTimeUnixNano"], "1700000000250000000");
  EXPECT_EQ(spans[0]["status"]["code"], 1);
  std::map<std::string, json> attributes;
  for (const json& one : spans[0]["attributes"]) attributes[one["key"]] = one["value"];
  EXPECT_EQ(attributes["gen_ai.request.model"]["stringValue"], "pirate");
  EXPECT_EQ(attributes["gen_ai.usage.output_tokens"]["intValue"], "12");
  EXPECT_EQ(attributes["polyad.request_id"]["stringValue"], "mine\"-1");
  EXPECT_FALSE(spans[1].contains("parentSpanId"));
  EXPECT_EQ(spans[1]["status"]["code"], 2);
  EXPECT_EQ(spans[1]["status"]["message"], "DEADLINE_EXCEEDED");
}

TEST(TraceExporterTest, WhatTheCollectorDoesNotTakeIsDroppedAndNobodyWaits) {
  Collector collector(503);
  TraceExporter refused(collector.endpoint());
  refused.Export(Request());
  EXPECT_TRUE(Eventually([&] { return refused.num_dropped() == 1; }));
  TraceExporter nobody({"127.0.0.1", "1", "/v1/traces"}, 1000);
  for (size_t i = 0; i < TraceExporter::kMaxQueued + 10; ++i) nobody.Export(Request());
  EXPECT_GE(nobody.num_dropped(), 10);
  EXPECT_TRUE(Eventually([&] {
    return nobody.num_dropped() == static_cast<int64_t>(TraceExporter::kMaxQueued) + 10;
  }));
  EXPECT_EQ(nobody.num_exported(), 0);
}

TEST(TraceExporterTest, RequestsAreExportedWhereTheServerSaysSo) {
  Collector collector(202);
  ServingFixture fixture;
  TraceExporter exporter(collector.endpoint());
  fixture.serving.traces = &exporter;
  RequestSpec spec;
  spec.request_id = "mine-1";
  spec.prompt = TextPrompt{"hi"};
  spec.trace = MakeTrace("");
  class Sink final : public ResponseSink {
    bool OnEvent(TokenEvent) override { return true; }
  };
  ASSERT_TRUE(SubmitRequest(fixture.serving, spec, std::make_shared<Sink>()).ok());
  EXPECT_TRUE(Eventually([&] { return exporter.num_exported() == 1; }));
}

TEST(TraceExporterTest, EndpointsAreUrls) {
  const auto parse = [](const char* url) {
    const auto endpoint = TraceExporter::ParseEndpoint(url);
    return endpoint.ok() ? endpoint->host + " " + endpoint->port + " " + endpoint->path : "refused";
  };
  EXPECT_EQ(parse("http://collector"), "collector 4318 /v1/traces");
  EXPECT_EQ(parse("http://collector:80/"), "collector 80 /v1/traces");
  EXPECT_EQ(parse("http://[::1]:4318/otlp"), "::1 4318 /otlp/v1/traces");
  EXPECT_EQ(parse("http://[::1]"), "::1 4318 /v1/traces");
  for (const char* url :
       {"", "collector:4318", "https://collector", "http://", "http://:4318", "http://a:b",
        "http://a:123456", "http://a b", "http://u@a", "http://a/?x", "http://a\r\nX: y"}) {
    EXPECT_EQ(parse(url), "refused") << url;
  }
}

}  // namespace
}  // namespace polyad
