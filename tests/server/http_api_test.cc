#include "server/http_api.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "server/http/http_server.h"
#include "server/openai_stream.h"
#include "tests/server/raw_client.h"
#include "tests/server/serving_fixture.h"

namespace polyad {
namespace {

using nlohmann::json;

struct Api {
  explicit Api(const std::string& tenants = "", const std::string& admin_token = "",
               HttpLimits limits = {})
      : fixture(tenants, admin_token), api(fixture.serving) {
    server = HttpServer::Start({.listen = "127.0.0.1:0", .limits = limits}, clock,
                               [this](const auto& exchange) { api.Handle(exchange); })
                 .value();
  }
  std::string Ask(const std::string& request) { return polyad::Ask(server->address(), request); }

  RealClock clock;
  ServingFixture fixture;
  HttpApi api;
  std::unique_ptr<HttpServer> server;
};

std::string BodyOf(const std::string& response) {
  const size_t at = response.find("\r\n\r\n");
  return at == std::string::npos ? "" : response.substr(at + 4);
}

// The data of each server-sent event, chunk framing taken away.
std::vector<std::string> EventsOf(const std::string& response) {
  std::string text;
  std::string body = BodyOf(response);
  while (!body.empty()) {
    const size_t line = body.find("\r\n");
    const size_t size = std::stoul(body.substr(0, line), nullptr, 16);
    text += body.substr(line + 2, size);
    body.erase(0, line + 2 + size + 2);
  }
  std::vector<std::string> events;
  size_t at = 0;
  for (size_t end; (end = text.find("\n\n", at)) != std::string::npos; at = end + 2) {
    EXPECT_EQ(text.substr(at, 6), "data: ");
    events.push_back(text.substr(at + 6, end - at - 6));
  }
  EXPECT_EQ(at, text.size());
  return events;
}

TEST(HttpApiTest, ACompletionIsAnsweredWhole) {
  Api api;
  const std::string response =
      api.Ask(Post("/v1/completions", R"({"model": "pirate", "prompt": "hi", "n": 2})"));
  ASSERT_EQ(StatusOf(response), 200) << response;
  const json body = json::parse(BodyOf(response));
  EXPECT_EQ(body["object"], "text_completion");
  EXPECT_EQ(body["model"], "pirate");
  ASSERT_EQ(body["choices"].size(), 2u);
  EXPECT_EQ(body["choices"][1]["text"], "w0 w1 w2 ");
  EXPECT_EQ(body["choices"][1]["finish_reason"], "stop");
  EXPECT_EQ(body["usage"]["prompt_tokens"], 5);
  EXPECT_EQ(body["usage"]["completion_tokens"], 6);
  EXPECT_EQ(body["usage"]["total_tokens"], 11);
}

TEST(HttpApiTest, AStreamIsEventsThenUsageThenDone) {
  Api api;
  const std::string response = api.Ask(
      Post("/v1/completions",
           R"({"prompt": [1, 2], "stream": true, "stream_options": {"include_usage": true}})"));
  ASSERT_EQ(StatusOf(response), 200) << response;
  EXPECT_NE(response.find("Content-Type: text/event-stream"), std::string::npos);
  const auto events = EventsOf(response);
  ASSERT_EQ(events.size(), 6u) << response;  // three tokens, the end, usage, [DONE]
  std::string text;
  for (size_t i = 0; i < 3; ++i)
    text += json::parse(events[i])["choices"][0]["text"].get<std::string>();
  EXPECT_EQ(text, "w0 w1 w2 ");
  EXPECT_EQ(json::parse(events[3])["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(json::parse(events[4])["usage"]["completion_tokens"], 3);
  EXPECT_EQ(events[5], "[DONE]");
}

TEST(HttpApiTest, AChatStreamsDeltasOfTheAssistant) {
  Api api;
  const std::string response =
      api.Ask(Post("/v1/chat/completions",
                   R"({"messages": [{"role": "user", "content": "hi"}], "stream": true})"));
  const auto events = EventsOf(response);
  ASSERT_EQ(events.size(), 5u) << response;
  const json first = json::parse(events[0]);
  EXPECT_EQ(first["object"], "chat.completion.chunk");
  EXPECT_EQ(first["choices"][0]["delta"]["role"], "assistant");
  EXPECT_EQ(first["choices"][0]["delta"]["content"], "w0 ");
  EXPECT_FALSE(json::parse(events[1])["choices"][0]["delta"].contains("role"));
  const RequestSpec spec = api.fixture.engine.last_spec();
  EXPECT_EQ(std::get<ChatPrompt>(spec.prompt).messages.front().content, "hi");
  EXPECT_GT(spec.stopping.max_tokens, 16);
}

TEST(HttpApiTest, LogprobsHaveOpenAisShapes) {
  Api api;
  const json completion = json::parse(
      BodyOf(api.Ask(Post("/v1/completions", R"({"prompt": "hi", "logprobs": 1, "echo": true})"))));
  const json& logprobs = completion["choices"][0]["logprobs"];
  ASSERT_EQ(logprobs["tokens"].size(), 4u);  // the prompt's first, then three
  EXPECT_EQ(logprobs["tokens"][0], "<104>");
  EXPECT_TRUE(logprobs["token_logprobs"][0].is_null());
  EXPECT_EQ(logprobs["token_logprobs"][1], -0.5);
  EXPECT_EQ(logprobs["text_offset"][1], 5);
  EXPECT_EQ(logprobs["top_logprobs"][1]["<0>"], -0.5);
  const json chat = json::parse(BodyOf(api.Ask(Post(
      "/v1/chat/completions",
      R"({"messages": [{"role": "user", "content": "hi"}], "logprobs": true, "top_logprobs": 1})"))));
  const json& content = chat["choices"][0]["logprobs"]["content"];
  ASSERT_EQ(content.size(), 3u);
  EXPECT_EQ(content[1]["token"], "<1>");
  EXPECT_EQ(content[1]["top_logprobs"][0]["logprob"], -0.5);
  EXPECT_EQ(content[1]["bytes"][0], '<');
}

TEST(HttpApiTest, ErrorsNameTheParameter) {
  Api api;
  const std::string bad =
      api.Ask(Post("/v1/completions", R"({"prompt": "hi", "temperature": 1000})"));
  EXPECT_EQ(StatusOf(bad), 400);
  const json error = json::parse(BodyOf(bad))["error"];
  EXPECT_EQ(error["param"], "temperature");
  EXPECT_EQ(error["type"], "invalid_request_error");
  EXPECT_EQ(StatusOf(api.Ask(Post("/v1/completions", R"({"model": "nobody", "prompt": "hi"})"))),
            404);
  EXPECT_EQ(StatusOf(api.Ask(Post("/v1/completions", R"({"prompt": "hi", "unknown": 1})"))), 400);
  EXPECT_EQ(StatusOf(api.Ask(Post("/v1/completions", "{"))), 400);
  EXPECT_EQ(StatusOf(api.Ask(Get("/v1/completions"))), 405);
  EXPECT_EQ(StatusOf(api.Ask(Get("/nowhere"))), 404);
  EXPECT_EQ(StatusOf(api.Ask(Get("/health/"))), 404);
}

TEST(HttpApiTest, AFullQueueIs429WithATimeToRetry) {
  Api api;
  api.fixture.engine.submit_status = ResourceExhausted("queue: full");
  const std::string response =
      api.Ask(Post("/v1/completions", R"({"prompt": "hi", "stream": true})"));
  EXPECT_EQ(StatusOf(response), 429);
  EXPECT_NE(response.find("Retry-After: 1"), std::string::npos);
}

TEST(HttpApiTest, AFailureBeforeTheFirstTokenIsAnHttpErrorAndLaterAnEvent) {
  Api api;
  api.fixture.engine.script.fail = DeadlineExceeded("deadline: passed");
  api.fixture.engine.script.num_tokens = 0;
  EXPECT_EQ(StatusOf(api.Ask(Post("/v1/completions", R"({"prompt": "hi", "stream": true})"))), 504);
  api.fixture.engine.script.num_tokens = 1;
  const auto events =
      EventsOf(api.Ask(Post("/v1/completions", R"({"prompt": "hi", "stream": true})")));
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(json::parse(events[1])["error"]["code"], 504);
}

TEST(HttpApiTest, ADisconnectCancelsTheRequest) {
  Api api;
  api.fixture.engine.script.forever = true;
  api.fixture.engine.script.gap_us = 1000;
  {
    RawClient client(api.server->address());
    client.Send(Post("/v1/completions", R"({"prompt": "hi", "stream": true})"));
    client.ReadUntil("w3 ");
  }
  EXPECT_TRUE(Eventually([&] { return api.fixture.engine.num_cancels.load() > 0; }));
}

TEST(HttpApiTest, AReaderThatStopsIsCutOffAndTheRequestCancelled) {
  HttpLimits limits;
  limits.max_stream_bytes = 32 << 10;
  Api api("", "", limits);
  api.fixture.engine.script.forever = true;
  api.fixture.engine.script.text_bytes = 4000;
  RawClient client(api.server->address(), 4096);
  client.Send(Post("/v1/completions", R"({"prompt": "hi", "stream": true})"));
  EXPECT_TRUE(Eventually([&] { return api.fixture.engine.num_refused_events.load() > 0; }));
}

TEST(HttpApiTest, TenantsComeFromTheirKeys) {
  Api api(kTenantsFile, "");
  api.Ask(Post("/v1/completions", R"({"prompt": "x"})", "Authorization: Bearer alice-key\r\n"));
  EXPECT_EQ(api.fixture.engine.last_spec().tenant, "alice");
}

TEST(HttpApiTest, AdaptersAreLoadedListedAndUnloaded) {
  Api api;
  const auto post = [&](const std::string& path, const std::string& body) {
    return api.Ask(Post(path, body));
  };
  EXPECT_EQ(StatusOf(post("/v1/load_lora_adapter", R"({"lora_name": "pirate", "lora_path": "p"})")),
            200);
  const json models = json::parse(BodyOf(api.Ask(Get("/v1/models"))));
  ASSERT_EQ(models["data"].size(), 2u);
  EXPECT_TRUE(models["data"][0]["parent"].is_null());
  EXPECT_EQ(models["data"][1]["id"], "pirate");
  EXPECT_EQ(models["data"][1]["parent"], "base-model");
  EXPECT_EQ(StatusOf(api.Ask(Get("/v1/models/pirate"))), 200);
  EXPECT_EQ(StatusOf(post("/v1/unload_lora_adapter", R"({"lora_name": "pirate"})")), 200);
  EXPECT_EQ(StatusOf(post("/v1/unload_lora_adapter", R"({"lora_name": "pirate"})")), 404);
  EXPECT_EQ(StatusOf(api.Ask(Get("/v1/models/pirate"))), 404);
  const std::string refused =
      post("/v1/load_lora_adapter", R"({"lora_name": "x", "lora_path": "bad"})");
  EXPECT_EQ(StatusOf(refused), 400);
  EXPECT_NE(refused.find("q_proj.lora_A"), std::string::npos);
  EXPECT_EQ(StatusOf(post("/v1/load_lora_adapter", R"({"lora_name": "../x", "lora_path": "p"})")),
            400);
  EXPECT_EQ(StatusOf(post("/v1/load_lora_adapter",
                          R"({"lora_name": "x", "lora_path": "p", "base_model_name": "other"})")),
            400);
}

TEST(HttpApiTest, AnAdminRouteWantsAJsonContentType) {
  Api api;
  const std::string body = R"({"lora_name": "x", "lora_path": "p"})";
  EXPECT_EQ(
      StatusOf(api.Ask("POST /v1/load_lora_adapter HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                       "Content-Type: text/plain\r\nContent-Length: " +
                       std::to_string(body.size()) + "\r\n\r\n" + body)),
      400);
}

TEST(HttpApiTest, ReadinessFollowsDrainingAndHealthDoesNot) {
  Api api;
  EXPECT_EQ(StatusOf(api.Ask(Get("/ready"))), 200);
  api.fixture.serving.draining.store(true);
  EXPECT_EQ(StatusOf(api.Ask(Get("/ready"))), 503);
  EXPECT_EQ(StatusOf(api.Ask(Get("/health"))), 200);
}

TEST(HttpApiTest, MetricsAreServed) {
  Api api;
  api.fixture.engine.load_snapshot.num_waiting = 7;
  const std::string response = api.Ask(Get("/metrics"));
  EXPECT_NE(response.find("text/plain; version=0.0.4"), std::string::npos);
  EXPECT_NE(response.find("\nvllm:num_requests_waiting 7\n"), std::string::npos);
}

TEST(HttpApiTest, ManyStreamsRunAtOnceWithoutAThreadEach) {
  Api api;
  api.fixture.engine.script.num_tokens = 50;
  api.fixture.engine.script.gap_us = 1000;
  std::vector<std::unique_ptr<RawClient>> clients;
  for (int i = 0; i < 64; ++i) {
    clients.push_back(std::make_unique<RawClient>(api.server->address()));
    clients.back()->Send(Post("/v1/completions", R"({"prompt": "hi", "stream": true})"));
  }
  EXPECT_EQ(StatusOf(api.Ask(Get("/health"))), 200);
  for (const auto& client : clients) {
    const std::string response = client->ReadAll();
    EXPECT_NE(response.find("w49 "), std::string::npos);
    EXPECT_NE(response.find("[DONE]"), std::string::npos);
  }
}

}  // namespace
}  // namespace polyad
