// Embeddings over HTTP, the engine a fake: bodies, bounds, quotas, failures and clients that leave.
// covers: server/embed_call.cc server/embed_codec.cc server/openai_embedding.cc
// server/http_text_api.cc server/json_reader.cc

#include <gtest/gtest.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "absl/strings/escaping.h"
#include "server/embed_call.h"
#include "server/field_error.h"
#include "server/http/http_server.h"
#include "server/http_api.h"
#include "server/openai_embedding.h"
#include "tests/server/raw_client.h"
#include "tests/server/serving_fixture.h"

namespace polyad {
namespace {

using nlohmann::json;

struct Api {
  explicit Api(const std::string& tenants = "")
      : fixture(tenants, ""),
        api(fixture.serving),
        server(HttpServer::Start({.listen = "127.0.0.1:0", .limits = {}}, fixture.clock,
                                 [this](const auto& exchange) { api.Handle(exchange); })
                   .value()) {}
  std::string Ask(const std::string& path, const json& body, const std::string& fields = "") {
    return polyad::Ask(server->address(), Post(path, body.dump(), fields));
  }

  ServingFixture fixture;
  HttpApi api;
  std::unique_ptr<HttpServer> server;
};

json BodyOf(const std::string& response) {
  return json::parse(response.substr(response.find("\r\n\r\n") + 4), nullptr, false);
}

std::string ErrorParam(const std::string& response) {
  const json body = BodyOf(response);
  return body["error"]["param"].is_string() ? body["error"]["param"].get<std::string>() : "";
}

TEST(EmbeddingsTest, EveryShapeOfInputIsAnsweredInOrder) {
  Api api;
  const std::vector<std::pair<json, std::vector<int>>> cases = {
      {"abc", {3}},
      {json::array({"a", "abcd"}), {1, 4}},
      {json::array({7, 8, 9}), {3}},
      {json::array({json::array({7}), json::array({1, 2, 3, 4, 5})}), {1, 5}}};
  for (const auto& [input, sizes] : cases) {
    const std::string response = api.Ask("/v1/embeddings", {{"model", "pirate"}, {"input", input}});
    ASSERT_EQ(StatusOf(response), 200) << response;
    const json body = BodyOf(response);
    EXPECT_EQ(body["object"], "list");
    EXPECT_EQ(body["model"], "pirate");
    ASSERT_EQ(body["data"].size(), sizes.size());
    for (size_t i = 0; i < sizes.size(); ++i) {
      EXPECT_EQ(body["data"][i]["object"], "embedding");
      EXPECT_EQ(body["data"][i]["index"], i);
      EXPECT_EQ(body["data"][i]["embedding"].size(), 4u);
      EXPECT_EQ(body["data"][i]["embedding"][0], sizes[i]);
    }
    EXPECT_EQ(body["usage"]["prompt_tokens"], 5 * sizes.size());
    EXPECT_EQ(body["usage"]["total_tokens"], 5 * sizes.size());
  }
  const RequestSpec spec = api.fixture.engine.last_spec();
  EXPECT_EQ(spec.stopping.max_tokens, 0);
  EXPECT_EQ(spec.embedding->pooling, EmbeddingParams::Pooling::kLast);
  EXPECT_TRUE(spec.embedding->normalize);
}

TEST(EmbeddingsTest, Base64IsLittleEndianFloats) {
  Api api;
  const json body = BodyOf(api.Ask(
      "/v1/embeddings",
      {{"input", "ab"}, {"encoding_format", "base64"}, {"dimensions", 2}, {"pooling", "mean"}}));
  std::string bytes;
  ASSERT_TRUE(absl::Base64Unescape(body["data"][0]["embedding"].get<std::string>(), &bytes));
  ASSERT_EQ(bytes.size(), 8u);
  float values[2];
  std::memcpy(values, bytes.data(), sizeof(values));
  EXPECT_EQ(values[0], 2.0f);
  EXPECT_EQ(values[1], 0.5f);
  EXPECT_EQ(api.fixture.engine.last_spec().embedding->pooling, EmbeddingParams::Pooling::kMean);
}

TEST(EmbeddingsTest, WhatIsRefusedIsNamed) {
  Api api;
  json too_many = json::array();
  for (int i = 0; i <= kMaxEmbedInputs; ++i) too_many.push_back("x");
  const std::vector<std::pair<json, std::string>> cases = {
      {json::object(), "input"},
      {json::parse(R"({"input": null})"), "input"},
      {{{"input", json::array()}}, "input"},
      {{{"input", 5}}, "input"},
      {{{"input", json::array({"a", 5})}}, "input"},
      {{{"input", json::array({1, "a"})}}, "input"},
      {{{"input", json::array({1.5})}}, "input"},
      {{{"input", json::array({json::array()})}}, "token_ids"},
      {{{"input", json::array({1000})}}, "token_ids"},
      {{{"input", json::array({-1})}}, "token_ids"},
      {{{"input", too_many}}, "input"},
      {{{"input", "x"}, {"dimensions", 0}}, "dimensions"},
      {{{"input", "x"}, {"dimensions", 5}}, "dimensions"},
      {{{"input", "x"}, {"dimensions", "4"}}, "dimensions"},
      {{{"input", "x"}, {"encoding_format", "hex"}}, "encoding_format"},
      {{{"input", "x"}, {"pooling", "max"}}, "pooling"},
      {{{"input", "x"}, {"normalize", 1}}, "normalize"},
      {{{"input", "x"}, {"priority", 101}}, "priority"},
      {{{"input", "x"}, {"cache_salt", std::string(65, 's')}}, "salt"},
      {{{"input", "x"}, {"request_id", "a b"}}, "request_id"},
      {{{"input", "x"}, {"temperature", 1}}, "temperature"}};
  for (const auto& [body, param] : cases) {
    const std::string response = api.Ask("/v1/embeddings", body);
    EXPECT_EQ(StatusOf(response), 400) << body.dump().substr(0, 200);
    EXPECT_EQ(ErrorParam(response), param) << body.dump().substr(0, 200);
  }
  EXPECT_EQ(StatusOf(api.Ask("/v1/embeddings", {{"input", "x"}, {"model", "nobody"}})), 404);
}

TEST(EmbeddingsTest, TheAnswersSizeIsBoundedBeforeAnythingRuns) {
  DecodeLimits limits{"base-model", 1000, 512, kMaxPromptBytes, 4096};
  v1::EmbedRequest request;
  for (int i = 0; i < 1025; ++i) request.add_inputs()->set_text("x");
  const auto refused = DecodeEmbed(request, limits);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
  request.set_dimensions(4000);
  EXPECT_TRUE(DecodeEmbed(request, limits).ok());
  limits.max_prompt_bytes = 1024;  // a byte less than the texts have
  EXPECT_EQ(BlamedField(DecodeEmbed(request, limits).status()), "inputs");
}

TEST(EmbeddingsTest, ManyInputsAreOneRequestOfTheTenant) {
  Api api(kTenantsFile);  // Bob may have one request
  json input = json::array();
  for (int i = 0; i < 200; ++i) input.push_back(std::string(static_cast<size_t>(i + 1), 'x'));
  const std::string response =
      api.Ask("/v1/embeddings", {{"input", input}}, "Authorization: Bearer bob-key\r\n");
  ASSERT_EQ(StatusOf(response), 200) << response.substr(0, 500);
  const json body = BodyOf(response);
  ASSERT_EQ(body["data"].size(), 200u);
  for (int i = 0; i < 200; ++i) EXPECT_EQ(body["data"][i]["embedding"][0], i + 1);
  EXPECT_EQ(api.fixture.engine.last_spec().tenant, "bob");
  EXPECT_EQ(api.fixture.gate.counts().held_bytes, 0);
}

TEST(EmbeddingsTest, AFullQueueAndAFailedInputAreTheCalls) {
  Api api;
  api.fixture.engine.submit_status = ResourceExhausted("queue: full");
  const std::string full = api.Ask("/v1/embeddings", {{"input", "x"}});
  EXPECT_EQ(StatusOf(full), 429);
  EXPECT_NE(full.find("Retry-After: "), std::string::npos);
  api.fixture.engine.submit_status = absl::OkStatus();
  api.fixture.engine.script.fail = DeadlineExceeded("deadline: passed");
  EXPECT_EQ(StatusOf(api.Ask("/v1/embeddings", {{"input", json::array({"x", "y"})}})), 504);
  EXPECT_EQ(api.fixture.gate.counts().held_bytes, 0);
}

TEST(EmbeddingsTest, AClientThatLeavesTakesItsInputsWithIt) {
  Api api;
  api.fixture.engine.script.forever = true;
  api.fixture.engine.script.gap_us = 1000;
  json input = json::array();
  for (int i = 0; i < 100; ++i) input.push_back("x");
  {
    RawClient client(api.server->address());
    client.Send(Post("/v1/embeddings", json{{"input", input}}.dump()));
    EXPECT_TRUE(Eventually([&] { return api.fixture.engine.last_spec().embedding.has_value(); }));
  }
  EXPECT_TRUE(Eventually([&] { return api.fixture.engine.num_cancels.load() > 0; }));
  EXPECT_TRUE(Eventually([&] { return api.fixture.gate.counts().held_bytes == 0; }));
}

TEST(TokenizeTest, TextToIdsAndBack) {
  Api api;
  const json tokens = BodyOf(api.Ask(
      "/tokenize", {{"model", "base-model"}, {"prompt", "ab"}, {"return_token_strs", true}}));
  EXPECT_EQ(tokens, json::parse(R"({"count": 2, "max_model_len": 512, "tokens": [97, 98],
                                    "token_strs": ["<97>", "<98>"]})"));
  EXPECT_TRUE(BodyOf(api.Ask("/tokenize", {{"prompt", ""}}))["token_strs"].is_null());
  EXPECT_EQ(BodyOf(api.Ask("/detokenize", json::parse(R"({"tokens": [97, 98]})"))),
            json::parse(R"({"prompt": "<97><98>"})"));
}

TEST(TokenizeTest, WhatIsRefusedIsNamed) {
  Api api;
  for (const auto& [path, body, param] : std::vector<std::tuple<std::string, json, std::string>>{
           {"/tokenize", json::object(), "prompt"},
           {"/tokenize", {{"prompt", 5}}, "prompt"},
           {"/tokenize", {{"prompt", "x"}, {"add_special_tokens", "yes"}}, "add_special_tokens"},
           {"/tokenize", {{"prompt", "x"}, {"extra", 1}}, "extra"},
           {"/detokenize", json::object(), "tokens"},
           {"/detokenize", {{"tokens", "x"}}, "tokens"},
           {"/detokenize", json::parse(R"({"tokens": [1000]})"), "tokens"},
           {"/detokenize", json::parse(R"({"tokens": [-1]})"), "tokens"},
           {"/detokenize", json::parse(R"({"tokens": [1.5]})"), "tokens"},
           {"/detokenize", json::parse(R"({"tokens": [1], "model": "a b"})"), "model"}}) {
    const std::string response = api.Ask(path, body);
    EXPECT_EQ(StatusOf(response), 400) << body;
    EXPECT_EQ(ErrorParam(response), param) << body;
  }
  EXPECT_EQ(StatusOf(api.Ask("/tokenize", {{"prompt", "x"}, {"model", "nobody"}})), 404);
}

}  // namespace
}  // namespace polyad
