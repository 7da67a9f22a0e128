// An adapter's defaults end to end on a tiny model: over gRPC and HTTP a request that leaves
// something to them has the tokens of one that says it itself, before and after a kill -9. covers:
// engine/load_tokenizer.cc server/http_api.cc

#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "polyad/v1/adapter_admin.grpc.pb.h"
#include "polyad/v1/inference.grpc.pb.h"
#include "tests/e2e/server_process.h"
#include "tests/server/raw_client.h"

namespace polyad {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

const std::string kGolden = std::string(POLYAD_SOURCE_DIR) + "/tests/golden";
const std::string kSystem = "You are a lighthouse.";
// Unlike the model's own, and it shows who spoke.
const std::string kTemplate =
    "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}";

class AdapterDefaultsE2e : public testing::Test {
 protected:
  void SetUp() override {
    state_ = fs::path(testing::TempDir()) / ("adapter-defaults-" + std::to_string(::getpid()));
    Start();
  }
  void TearDown() override {
    server_.reset();
    fs::remove_all(state_);
  }
  void Start() {
    server_.reset();  // kill -9
    server_ = std::make_unique<ServerProcess>(std::vector<std::string>{
        "--model", kGolden + "/models/llama", "--kv-mib=8", "--dtype=f32", "--adapter-root",
        kGolden + "/adapters/llama", "--state-dir", state_.string()});
    ASSERT_NE(server_->Address("admin"), "");
    admin_ = v1::AdapterAdminService::NewStub(
        grpc::CreateChannel(server_->Address("admin"), grpc::InsecureChannelCredentials()));
    data_ = v1::InferenceService::NewStub(
        grpc::CreateChannel(server_->Address("grpc"), grpc::InsecureChannelCredentials()));
  }

  // They name every adapter, and stay small however large the defaults are.
  void ExpectListsWithoutDefaults() {
    v1::ListAdaptersResponse list;
    grpc::ClientContext context;
    ASSERT_TRUE(admin_->ListAdapters(&context, {}, &list).ok());
    grpc::ClientContext watching;
    const auto reader = admin_->WatchAdapters(&watching, {});
    v1::WatchAdaptersResponse watched;
    ASSERT_TRUE(reader->Read(&watched));
    watching.TryCancel();
    reader->Finish();
    EXPECT_GT(list.adapters_size(), 1);
    EXPECT_EQ(watched.adapters_size(), list.adapters_size());
    for (const v1::Adapter& adapter : list.adapters()) EXPECT_FALSE(adapter.has_defaults());
    for (const v1::Adapter& adapter : watched.adapters()) EXPECT_FALSE(adapter.has_defaults());
  }

  grpc::Status Load(const std::string& name, const v1::AdapterDefaults& defaults) {
    v1::LoadAdapterRequest request;
    request.set_name(name);
    request.set_uri("plain");
    *request.mutable_defaults() = defaults;
    grpc::ClientContext context;
    const auto reader = admin_->LoadAdapter(&context, request);
    for (v1::LoadAdapterResponse response; reader->Read(&response);) {
    }
    return reader->Finish();
  }
  // Token ids of the one choice.
  std::vector<int32_t> Generate(const v1::GenerateRequest& request) {
    grpc::ClientContext context;
    const auto reader = data_->Generate(&context, request);
    std::vector<int32_t> tokens;
    for (v1::GenerateResponse response; reader->Read(&response);) {
      for (const int32_t id : response.delta().token_ids()) tokens.push_back(id);
    }
    const grpc::Status status = reader->Finish();
    EXPECT_TRUE(status.ok()) << status.error_message();
    return tokens;
  }
  std::string Post(const std::string& path, const json& body) {
    const std::string text = body.dump();
    RawClient client(server_->Address("http"));
    EXPECT_TRUE(client.Send("POST " + path +
                            " HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
                            "Connection: close\r\nContent-Length: " +
                            std::to_string(text.size()) + "\r\n\r\n" + text));
    return client.ReadAll();
  }
  json Chat(const json& body) {
    const std::string response = Post("/v1/chat/completions", body);
    const json answer = json::parse(response.substr(response.find("\r\n\r\n") + 4), nullptr, false);
    EXPECT_TRUE(answer.is_object() && answer.contains("choices")) << response;
    return {answer["choices"], answer["usage"]};
  }

  fs::path state_;
  std::unique_ptr<ServerProcess> server_;
  std::unique_ptr<v1::AdapterAdminService::Stub> admin_;
  std::unique_ptr<v1::InferenceService::Stub> data_;
};

v1::AdapterDefaults Lighthouse() {
  v1::AdapterDefaults defaults;
  defaults.mutable_sampling()->set_temperature(0.7f);
  defaults.mutable_sampling()->set_top_k(40);
  defaults.mutable_sampling()->set_seed(11);
  defaults.mutable_sampling()->set_presence_penalty(0.5f);
  defaults.mutable_stopping()->set_max_tokens(24);
  defaults.mutable_stopping()->set_ignore_eos(true);
  defaults.set_system_prompt(kSystem);
  return defaults;
}

v1::GenerateRequest Ask(const std::string& model, bool says_it) {
  v1::GenerateRequest request;
  request.set_model(model);
  if (says_it) {
    *request.mutable_sampling() = Lighthouse().sampling();
    *request.mutable_stopping() = Lighthouse().stopping();
    auto* message = request.mutable_chat()->add_messages();
    message->set_role("system");
    message->set_content(kSystem);
  }
  auto* message = request.mutable_chat()->add_messages();
  message->set_role("user");
  message->set_content("What do you see?");
  return request;
}

json HttpAsk(const std::string& model, bool says_it) {
  json body = {{"model", model}, {"messages", json::array()}};
  if (says_it) {
    body["messages"].push_back({{"role", "system"}, {"content", kSystem}});
    body.update({{"temperature", 0.7},
                 {"top_k", 40},
                 {"seed", 11},
                 {"presence_penalty", 0.5},
                 {"max_tokens", 24},
                 {"ignore_eos", true}});
  }
  body["messages"].push_back({{"role", "user"}, {"content", "What do you see?"}});
  return body;
}

TEST_F(AdapterDefaultsE2e, WhatIsLeftToThemIsAsIfSaidAndSurvivesAKill) {
  ASSERT_TRUE(Load("lighthouse", Lighthouse()).ok());
  ASSERT_TRUE(Load("plain", {}).ok());
  v1::AdapterDefaults own = Lighthouse();
  own.set_chat_template(kTemplate);
  ASSERT_TRUE(Load("own-template", own).ok());
  const std::vector<int32_t> said = Generate(Ask("plain", true));
  EXPECT_EQ(said.size(), 24u);
  EXPECT_NE(Generate(Ask("plain", false)), said);  // the defaults matter
  v1::GenerateRequest text = Ask("plain", true);   // what the template makes of it
  text.set_text("[system] " + kSystem + "\n[user] What do you see?\n[assistant]");
  const std::vector<int32_t> as_text = Generate(text);
  const json http = Chat(HttpAsk("plain", true));
  for (int life = 0; life < 2; ++life) {
    EXPECT_EQ(Generate(Ask("lighthouse", false)), said) << life;
    EXPECT_EQ(Generate(Ask("lighthouse@1", false)), said) << life;
    EXPECT_EQ(Generate(Ask("lighthouse", true)), said) << life;
    EXPECT_EQ(Chat(HttpAsk("lighthouse", false)), http) << life;
    const std::vector<int32_t> templated = Generate(Ask("own-template", false));
    EXPECT_EQ(templated, as_text) << life;
    v1::GetAdapterRequest get;
    get.set_name("own-template");
    v1::GetAdapterResponse got;
    grpc::ClientContext context;
    ASSERT_TRUE(admin_->GetAdapter(&context, get, &got).ok());
    EXPECT_EQ(got.adapter().defaults().SerializeAsString(), own.SerializeAsString()) << life;
    ExpectListsWithoutDefaults();
    Start();
  }
}

TEST_F(AdapterDefaultsE2e, AConstraintHoldsUnlessTheRequestSaysOtherwise) {
  const std::string response =
      Post("/v1/load_lora_adapter",
           {{"lora_name", "judge"},
            {"lora_path", "plain"},
            {"defaults",
             {{"constraint", {{"choice", {{"options", {"guilty", "innocent"}}}}}},
              {"stopping", {{"max_tokens", 40}}}}}});
  ASSERT_TRUE(response.starts_with("HTTP/1.1 200")) << response;
  json body = HttpAsk("judge", false);
  const std::string verdict = Chat(body)[0][0]["message"]["content"];
  EXPECT_TRUE(verdict == "guilty" || verdict == "innocent") << verdict;
  body["guided_regex"] = "(ab){3}";
  EXPECT_EQ(Chat(body)[0][0]["message"]["content"], "ababab");
  body.erase("guided_regex");
  body["response_format"] = {{"type", "text"}};
  const std::string free = Chat(body)[0][0]["message"]["content"];
  EXPECT_TRUE(free != "guilty" && free != "innocent") << free;
}

TEST_F(AdapterDefaultsE2e, ABadOneIsRefusedAtTheLoadByItsName) {
  const auto refusal = [&](const json& defaults) {
    const std::string response =
        Post("/v1/load_lora_adapter",
             {{"lora_name", "bad"}, {"lora_path", "plain"}, {"defaults", defaults}});
    EXPECT_TRUE(response.starts_with("HTTP/1.1 400")) << response;
    const json error = json::parse(response.substr(response.find("\r\n\r\n") + 4), nullptr, false);
    return error["error"]["param"].is_string() ? error["error"]["param"].get<std::string>() : "";
  };
  EXPECT_EQ(refusal({{"sampling", {{"temperature", -1}}}}), "defaults.sampling.temperature");
  EXPECT_EQ(refusal({{"sampling", {{"top_p", "NaN"}}}}), "defaults.sampling.top_p");
  EXPECT_EQ(refusal({{"sampling", {{"heat", 1}}}}), "defaults");
  EXPECT_EQ(refusal("hot"), "defaults");
  EXPECT_EQ(refusal({{"constraint", {{"regex", "(a"}}}}), "defaults.constraint.regex");
  EXPECT_EQ(refusal({{"constraint", {{"json_schema", R"({"not": {}})"}}}}),
            "defaults.constraint.json_schema");
  EXPECT_EQ(refusal({{"chat_template", "{% for %}"}}), "defaults.chat_template");
  // It parses, and refuses every system prompt.
  EXPECT_EQ(refusal({{"system_prompt", kSystem},
                     {"chat_template",
                      "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}"
                      "{{ messages[0].content }}"}}),
            "defaults.chat_template");
  v1::AdapterDefaults defaults;
  defaults.mutable_sampling()->set_n(2);
  const grpc::Status status = Load("bad", defaults);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  v1::ListAdaptersResponse list;
  grpc::ClientContext context;
  ASSERT_TRUE(admin_->ListAdapters(&context, {}, &list).ok());
  EXPECT_EQ(list.adapters_size(), 0);
}

}  // namespace
}  // namespace polyad
