// Tools in chat templates: against jinja2 with what transformers gives a template
// (tests/golden/text/chat_tool_goldens.py), and as text for templates that know none.

#include "engine/text/chat_tools.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/engine/text/golden_files.h"

namespace polyad {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

constexpr char kPlainTemplate[] =
    "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}";

std::string StringOf(const json& object, const char* key) { return object.value(key, ""); }

ChatInput InputOf(const json& golden) {
  ChatInput input{.bos_token = "<s>", .eos_token = "</s>"};
  for (const json& tool : golden["tools"]) input.tools.push_back({tool[0], tool[1], tool[2]});
  for (const json& from : golden["messages"]) {
    ChatMessage message{from["role"], from["content"]};
    message.tool_call_id = StringOf(from, "tool_call_id");
    message.name = StringOf(from, "name");
    if (from.contains("tool_calls")) {
      for (const json& call : from["tool_calls"])
        message.tool_calls.push_back({call[0], call[1], call[2]});
    }
    input.messages.push_back(std::move(message));
  }
  return input;
}

std::string Join(const std::vector<TextSegment>& segments, bool only_template = false) {
  std::string text;
  for (const TextSegment& segment : segments) {
    if (!only_template || !segment.from_user) text += segment.text;
  }
  return text;
}

std::string Render(const char* source, const ChatInput& input) {
  const auto segments = ChatTemplate::Parse(source)->Render(input);
  return segments.ok() ? Join(*segments) : segments.status().ToString();
}

ChatInput Ask() {
  ChatInput input;
  input.messages = {{"user", "Hi"}};
  input.tools = {{"get_time", "Now.", R"({"type": "object", "properties": {"b": {}, "a": {}}})"}};
  return input;
}

TEST(ChatToolsTest, RendersAsJinjaDoes) {
  const json goldens = json::parse(ReadGoldenFile("chat_tools.json"));
  const auto parsed = ChatTemplate::Parse(goldens["template"].get<std::string>());
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  ASSERT_GE(goldens["cases"].size(), 6u);
  for (const json& golden : goldens["cases"]) {
    const auto segments = parsed->Render(InputOf(golden));
    ASSERT_TRUE(segments.ok()) << segments.status();
    EXPECT_EQ(Join(*segments), golden["text"].get<std::string>());
    // What a tool said is never the template's word.
    EXPECT_EQ(Join(*segments, true).find("\"time\""), std::string::npos);
  }
}

TEST(ChatToolsTest, ATemplateThatKnowsNoToolsGetsThemInTheSystemMessage) {
  ChatInput input = Ask();
  const std::string made = Render(kPlainTemplate, input);
  EXPECT_TRUE(made.starts_with("[system]# Tools")) << made;
  EXPECT_THAT(made, HasSubstr(R"({"type": "function", "function": {"name": "get_time", )"
                              R"("description": "Now.", "parameters": {"type": "object", )"
                              R"("properties": {"b": {}, "a": {}}}}})"));
  EXPECT_THAT(made, HasSubstr("</tool_call>[user]Hi"));
  input.messages.insert(input.messages.begin(), {"system", "Be brief."});
  EXPECT_TRUE(Render(kPlainTemplate, input).starts_with("[system]Be brief.\n\n# Tools"));
  input.tools.clear();
  EXPECT_EQ(Render(kPlainTemplate, input), "[system]Be brief.[user]Hi");
}

TEST(ChatToolsTest, CallsAndAnswersBecomeMessagesThatEveryTemplateKnows) {
  ChatInput input;
  input.messages = {{"user", "Hi"},
                    {"assistant", "I look.", {{"1", "f", R"({"b": 1, "a": [2]})"}, {"2", "g", ""}}},
                    {"tool", "one", {}, "1"},
                    {"tool", "two", {}, "2"},
                    {"user", "Thanks"}};
  EXPECT_EQ(Render(kPlainTemplate, input),
            "[user]Hi"
            "[assistant]I look.\n"
            "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"b\": 1, \"a\": [2]}}\n</tool_call>\n"
            "<tool_call>\n{\"name\": \"g\", \"arguments\": {}}\n</tool_call>"
            "[user]<tool_response>\none\n</tool_response>\n<tool_response>\ntwo\n</tool_response>"
            "[user]Thanks");
}

TEST(ChatToolsTest, WhatIsNoJsonObjectIsRefused) {
  for (const char* source : {kPlainTemplate, "{{ tools | tojson }}{{ messages | tojson }}"}) {
    ChatInput input = Ask();
    input.tools[0].parameters = "[]";
    EXPECT_THAT(Render(source, input), HasSubstr("tools.parameters: expected a JSON object"));
    input = Ask();
    input.messages.push_back({"assistant", "", {{"1", "f", "{"}}});
    EXPECT_THAT(Render(source, input), HasSubstr("messages.tool_calls.arguments"));
  }
}

TEST(ChatToolsTest, ManyToolsAreBounded) {
  ChatInput input = Ask();
  std::string parameters = R"({"type": "object", "enum": [0)";
  for (int i = 0; i < 30'000; ++i) parameters += ",1";
  input.tools.assign(128, {"f", "", parameters + "]}"});
  const auto segments =
      ChatTemplate::Parse("{% for tool in tools %}{{ tool | tojson }}{% endfor %}")->Render(input);
  EXPECT_EQ(segments.status().code(), absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace polyad
