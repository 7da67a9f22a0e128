// The document that HTTP serves against what it serves. covers: server/openapi_document.h

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "server/access.h"
#include "server/http_api.h"
#include "server/openai_request.h"
#include "server/openapi_document.h"

namespace polyad {
namespace {

using nlohmann::json;

json Document() { return json::parse(OpenApiDocument(), nullptr, false); }

void CollectReferences(const json& value, std::set<std::string>& out) {
  if (value.is_object() && value.contains("$ref")) out.insert(value["$ref"].get<std::string>());
  for (const auto& item : value) {
    if (item.is_structured()) CollectReferences(item, out);
  }
}

TEST(OpenApiTest, HasEveryRouteAndNoOther) {
  const json document = Document();
  ASSERT_FALSE(document.is_discarded());
  std::set<std::pair<std::string, std::string>> described;
  for (const auto& [path, methods] : document["paths"].items()) {
    for (const auto& [method, operation] : methods.items()) {
      described.emplace(method == "get" ? "GET" : "POST", path);
    }
  }
  std::set<std::pair<std::string, std::string>> served;
  for (const HttpApi::Route& route : HttpApi::Routes()) served.emplace(route.method, route.path);
  EXPECT_EQ(described, served);
}

TEST(OpenApiTest, AsksForTheCredentialThatTheTableOfAccessAsksFor) {
  const json document = Document();
  const std::map<Access, json> schemes = {{Access::kPublic, json::array()},
                                          {Access::kTenant, {{{"tenant", json::array()}}}},
                                          {Access::kMetrics, {{{"metrics", json::array()}}}},
                                          {Access::kAdmin, {{{"admin", json::array()}}}}};
  for (const HttpApi::Route& route : HttpApi::Routes()) {
    const json& operation =
        document["paths"][std::string(route.path)][route.method == "GET" ? "get" : "post"];
    EXPECT_EQ(operation["security"], schemes.at(*FindAccess(route.method, route.path)))
        << route.path;
    EXPECT_TRUE(operation["responses"].contains("200")) << route.path;
  }
}

TEST(OpenApiTest, HasEveryFieldOfCompletionsAndChats) {
  const json document = Document();
  for (const auto& [kind, name] : {std::pair(OpenAiKind::kCompletion, "CompletionRequest"),
                                   std::pair(OpenAiKind::kChat, "ChatRequest")}) {
    std::vector<std::string> fields;
    for (const auto& [field, schema] :
         document["components"]["schemas"][name]["properties"].items()) {
      fields.push_back(field);
    }
    EXPECT_EQ(fields, OpenAiFields(kind)) << name;
  }
}

TEST(OpenApiTest, EveryReferenceLeadsSomewhere) {
  const json document = Document();
  std::set<std::string> references;
  CollectReferences(document, references);
  EXPECT_GT(references.size(), 20u);
  for (const std::string& reference : references) {
    EXPECT_TRUE(document.contains(json::json_pointer(reference.substr(1)))) << reference;
  }
}

}  // namespace
}  // namespace polyad
