// Structured output end to end on a tiny model of random weights, which would never write JSON of
// its own: over HTTP under OpenAI's and vLLM's names, streamed too, and over gRPC, for the base and
// an adapter. covers: engine/engine.cc server/openai_constraint.cc

#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>
#include <thread>

#include "polyad/v1/inference.grpc.pb.h"
#include "tests/e2e/clients.h"
#include "tests/e2e/server_process.h"
#include "tests/server/raw_client.h"

namespace polyad {
namespace {

const std::string kGolden = std::string(POLYAD_SOURCE_DIR) + "/tests/golden";

const nlohmann::json kSchema = nlohmann::json::parse(R"({"type": "object", "properties": {
  "name": {"type": "string", "minLength": 1, "maxLength": 8}, "age": {"type": "integer", "minimum": 0, "maximum": 120},
  "tags": {"type": "array", "items": {"enum": ["red", "green"]}, "minItems": 1, "maxItems": 3}},
  "required": ["name", "age", "tags"], "additionalProperties": false})");

ServerProcess& Server() {
  static auto& server =
      *new ServerProcess({"--model", kGolden + "/models/llama", "--dtype=f32", "--kv-mib=8",
                          "--adapter", "plain=" + kGolden + "/adapters/llama/plain"});
  return server;
}

// The server ends with the thread that began it, so that is the main one.
class OneServer final : public testing::Environment {
 public:
  void SetUp() override { Server(); }
  void TearDown() override { delete &Server(); }
};
[[maybe_unused]] const testing::Environment* const kEnvironment =
    testing::AddGlobalTestEnvironment(new OneServer);

std::string Ask(const std::string& path, const nlohmann::json& body) {
  const std::string text = body.dump();
  RawClient client(Server().Address("http"));
  EXPECT_TRUE(
      client.Send("POST " + path +
                  " HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nConnection: close\r\n"
                  "Content-Length: " +
                  std::to_string(text.size()) + "\r\n\r\n" + text));
  return client.ReadAll();
}

nlohmann::json BodyOf(const std::string& response) {
  return nlohmann::json::parse(response.substr(response.find("\r\n\r\n") + 4), nullptr, false);
}

void ExpectPerson(const std::string& text) {
  const auto person = nlohmann::json::parse(text, nullptr, false);
  ASSERT_TRUE(person.is_object()) << text;
  ASSERT_EQ(person.size(), 3u) << text;
  EXPECT_LE(person["age"].get<int>(), 120) << text;
  EXPECT_GE(person["tags"].size(), 1u) << text;
  for (const auto& tag : person["tags"]) EXPECT_TRUE(tag == "red" || tag == "green") << text;
}

nlohmann::json PersonFormat() {
  return {{"type", "json_schema"},
          {"json_schema", {{"name", "person"}, {"strict", true}, {"schema", kSchema}}}};
}

TEST(StructuredOutput, ManyTenantsWriteJsonAfterASchemaAtOnce) {
  std::vector<std::thread> clients;
  for (int i = 0; i < 8; ++i) {
    clients.emplace_back([i] {
      const nlohmann::json body = {{"prompt", "hello"}, {"model", i % 2 == 0 ? "llama" : "plain"},
                                   {"max_tokens", 200}, {"seed", i},
                                   {"n", 1 + i % 2},    {"response_format", PersonFormat()}};
      const auto answer = BodyOf(Ask("/v1/completions", body));
      ASSERT_TRUE(answer.contains("choices")) << answer;
      for (const auto& choice : answer["choices"]) {
        EXPECT_EQ(choice["finish_reason"], "stop");
        ExpectPerson(choice["text"].get<std::string>());
      }
    });
  }
  for (std::thread& client : clients) client.join();
}

TEST(StructuredOutput, StreamsToo) {
  const std::string response =
      Ask("/v1/completions", {{"prompt", "hello"},
                              {"max_tokens", 200},
                              {"seed", 3},
                              {"stream", true},
                              {"structured_outputs", {{"json", kSchema}}}});
  std::string text;
  for (size_t at = response.find("data: {"); at != response.npos;
       at = response.find("data: {", at + 1)) {
    const auto event = nlohmann::json::parse(
        response.substr(at + 6, response.find('\n', at) - at - 6), nullptr, false);
    if (event.contains("choices") && !event["choices"].empty()) {
      text += event["choices"][0]["text"].get<std::string>();
    }
  }
  ExpectPerson(text);
}

TEST(StructuredOutput, VllmsFields) {
  const auto complete = [](const std::string& field, const nlohmann::json& value) {
    const nlohmann::json body = {
        {"prompt", "hello"}, {"max_tokens", 60}, {"seed", 1}, {field, value}};
    return BodyOf(Ask("/v1/completions", body))["choices"][0]["text"].get<std::string>();
  };
  const std::string choice = complete("guided_choice", {"yes", "no"});
  EXPECT_TRUE(choice == "yes" || choice == "no") << choice;
  const std::string date = complete("guided_regex", "[0-9]{4}-[0-9]{2}");
  EXPECT_EQ(date.size(), 7u);
  EXPECT_EQ(date[4], '-');
  const std::string sum = complete("guided_grammar", "root ::= [1-9] (\"+\" [1-9]){2}\n");
  EXPECT_EQ(sum.size(), 5u);
  EXPECT_EQ(sum[1], '+');
}

TEST(StructuredOutput, GrpcTakesEveryForm) {
  const auto stub = v1::InferenceService::NewStub(
      grpc::CreateChannel(Server().Address("grpc"), grpc::InsecureChannelCredentials()));
  const auto generate = [&](const std::function<void(v1::Constraint&)>& set) {
    v1::GenerateRequest request;
    request.set_text("hello");
    request.mutable_sampling()->set_seed(4);
    request.mutable_stopping()->set_max_tokens(200);
    set(*request.mutable_constraint());
    grpc::ClientContext context;
    const auto reader = stub->Generate(&context, request);
    std::string text;
    for (v1::GenerateResponse response; reader->Read(&response);) text += response.delta().text();
    const grpc::Status status = reader->Finish();
    EXPECT_TRUE(status.ok()) << status.error_message();
    return text;
  };
  ExpectPerson(generate([](v1::Constraint& c) { c.set_json_schema(kSchema.dump()); }));
  EXPECT_EQ(generate([](v1::Constraint& c) { c.mutable_choice()->add_options("only"); }), "only");
  EXPECT_EQ(generate([](v1::Constraint& c) { c.set_regex("(ab){3}"); }), "ababab");
  EXPECT_EQ(generate([](v1::Constraint& c) { c.set_grammar("start: \"x\"~4"); }), "xxxx");
}

TEST(StructuredOutput, WhatIsNotServedIsRefusedWithItsPlace) {
  const std::string response =
      Ask("/v1/completions",
          {{"prompt", "hello"},
           {"guided_json", {{"properties", {{"a", {{"not", nlohmann::json::object()}}}}}}}});
  EXPECT_TRUE(response.starts_with("HTTP/1.1 400")) << response;
  EXPECT_NE(response.find("/properties/a"), response.npos) << response;
  EXPECT_NE(response.find("'not'"), response.npos) << response;
}

}  // namespace
}  // namespace polyad
