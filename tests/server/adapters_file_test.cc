#include "server/adapters_file.h"

#include <gtest/gtest.h>

#include "server/adapter_reconciler.h"

namespace polyad {
namespace {

std::string WhyNot(const std::string& text) {
  const auto file = ParseAdaptersFile(text);
  return file.ok() ? "accepted" : std::string(file.status().message());
}

TEST(AdaptersFileTest, AnAdapterIsALoadRequestWithAliases) {
  const auto file = ParseAdaptersFile(R"({"adapters": [
      {"name": "support", "uri": "acme/support", "aliases": ["helpdesk", "help"], "pinned": true,
       "allowed_tenants": ["acme"], "options": {"task": 2},
       "defaults": {"sampling": {"temperature": 0.25}, "systemPrompt": "Be brief."}},
      {"name": "legal", "uri": "legal"}], "absent": ["old"]})");
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_EQ(file->adapters.size(), 2);
  const DeclaredAdapter& support = file->adapters[0];
  EXPECT_EQ(support.request.name(), "support");
  EXPECT_EQ(support.request.uri(), "acme/support");
  EXPECT_TRUE(support.request.pinned());
  EXPECT_EQ(support.request.allowed_tenants(0), "acme");
  EXPECT_EQ(support.request.options().at("task"), 2);
  EXPECT_EQ(support.request.defaults().sampling().temperature(), 0.25f);
  EXPECT_EQ(support.request.defaults().system_prompt(), "Be brief.");
  EXPECT_EQ(support.aliases, (std::vector<std::string>{"helpdesk", "help"}));
  EXPECT_EQ(file->absent, std::vector<std::string>{"old"});
}

TEST(AdaptersFileTest, TheDigestIsOfWhatALoadDependsOn) {
  const auto digest = [](const std::string& members) {
    return ParseAdaptersFile(R"({"adapters": [{"name": "a", )" + members + "}]}")
        .value()
        .adapters[0]
        .digest;
  };
  const std::string plain = digest(R"("uri": "x")");
  EXPECT_EQ(plain, digest(R"("aliases": ["b"], "uri": "x", "pinned": true)"));
  EXPECT_NE(plain, digest(R"("uri": "y")"));
  EXPECT_NE(plain, digest(R"("uri": "x", "allowed_tenants": ["acme"])"));
}

TEST(AdaptersFileTest, TheSidecarsConfigurationIsTaken) {
  const auto file = ParseAdaptersFile(R"({"vLLMLoRAConfig": {
      "name": "pool", "host": "localhost", "port": 8000, "defaultBaseModel": "base",
      "ensureExist": {"models": [{"id": "sql", "source": "sql-lora"},
                                 {"id": "tweet", "source": "t", "base-model": "other"}]},
      "ensureNotExist": {"models": [{"id": "old", "source": "o"}]}}})");
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_EQ(file->adapters.size(), 2);
  EXPECT_EQ(file->adapters[0].request.name(), "sql");
  EXPECT_EQ(file->adapters[0].request.uri(), "sql-lora");
  EXPECT_EQ(file->adapters[0].base, "base");
  EXPECT_EQ(file->adapters[1].base, "other");
  EXPECT_EQ(file->absent, std::vector<std::string>{"old"});
  const auto ours = ParseAdaptersFile(R"({"adapters": [{"name": "sql", "uri": "sql-lora"}]})");
  EXPECT_EQ(file->adapters[0].digest, ours->adapters[0].digest) << "the same load in either form";
}

TEST(AdaptersFileTest, WhatIsWrongIsRefusedByName) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "adapters file"},
      {"[]", "adapters file"},
      {"{", "adapters file"},
      {R"({"adaptors": []})", "key 'adaptors'"},
      {R"({"adapters": {}})", "key 'adapters': expected an array"},
      {R"({"adapters": [1]})", "adapters[0]: expected an object"},
      {R"({"adapters": [{"uri": "x"}]})", "adapters[0]: key 'name'"},
      {R"({"adapters": [{"name": "../x", "uri": "x"}]})", "adapters[0]: key 'name'"},
      {R"({"adapters": [{"name": "a", "uri": "x", "urii": "y"}]})", "urii"},
      {R"({"adapters": [{"name": "a", "uri": 5e99}, {"name": "a"}]})", "adapter 'a'"},
      {R"({"adapters": [{"name": "a", "uri": "x", "uri": "y"}]})", "uri"},
      {R"({"adapters": [{"name": "a", "uri": "x", "replace": true}]})", "key 'replace'"},
      {R"({"adapters": [{"name": "a", "uri": "x", "share": 0.5}]})", "key 'share'"},
      {R"({"adapters": [{"name": "a", "uri": "x", "expectedVersion": 1}]})", "expectedVersion"},
      {R"({"adapters": [{"name": "a", "uri": "x", "aliases": "b"}]})", "key 'aliases'"},
      {R"({"adapters": [{"name": "a", "uri": "x", "aliases": [""]}]})", "key 'aliases'"},
      {R"({"adapters": [{"name": "a", "uri": "x"}, {"name": "a", "uri": "y"}]})", "'a': declared"},
      {R"({"adapters": [{"name": "a", "uri": "x", "aliases": ["a"]}]})", "'a': declared twice"},
      {R"({"adapters": [{"name": "a", "uri": "x"}], "absent": ["a"]})", "'a': declared twice"},
      {R"({"vLLMLoRAConfig": {}, "adapters": []})", "key 'adapters'"},
      {R"({"vLLMLoRAConfig": {"ensureExists": {}}})", "key 'ensureExists'"},
      {R"({"vLLMLoRAConfig": {"ensureExist": {"models": [{"id": "a"}]}}})", "source"}};
  for (const auto& [text, part] : cases) {
    EXPECT_NE(WhyNot(text).find(part), std::string::npos) << text << ": " << WhyNot(text);
  }
}

TEST(AdaptersFileTest, ItsSizeAndCountsAreLimited) {
  const std::string large(static_cast<size_t>(kMaxAdaptersFileBytes) + 1, ' ');
  EXPECT_EQ(ParseAdaptersFile(large).status().code(), absl::StatusCode::kResourceExhausted);
  const auto declared = [](size_t count) {
    std::string text = R"({"adapters": [)";
    for (size_t i = 0; i < count; ++i) {
      text += (i > 0 ? "," : "") + (R"({"name": "a)" + std::to_string(i) + R"(", "uri": "x"})");
    }
    return ParseAdaptersFile(text + "]}");
  };
  EXPECT_TRUE(declared(kMaxDeclaredAdapters).ok());
  EXPECT_EQ(declared(kMaxDeclaredAdapters + 1).status().code(),
            absl::StatusCode::kResourceExhausted);
  std::string nested = R"({"adapters": [{"name": "a", "uri": "x", "defaults": )";
  for (int i = 0; i < 100'000; ++i) nested += R"({"a":)";
  EXPECT_NE(WhyNot(nested), "accepted");
}

}  // namespace
}  // namespace polyad
