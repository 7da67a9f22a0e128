// Tools over HTTP: what requests say of them, and the calls read out of what a model writes.
// covers: server/openai_tools.cc server/tool_codec.cc

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/field_error.h"
#include "server/openai_request.h"
#include "server/request_codec.h"
#include "server/tool_call_reader.h"
#include "server/tool_codec.h"

namespace polyad {
namespace {

using Kind = ConstraintSpec::Kind;

struct Read {
  std::string content;
  std::vector<std::string> calls;
  friend bool operator==(const Read&, const Read&) = default;
};

void Take(ToolCallReader::Piece piece, Read& out) {
  out.content += piece.content;
  for (const MadeToolCall& call : piece.calls) out.calls.push_back(call.name + call.arguments);
}

// In pieces of `size` bytes.
Read ReadAll(const std::string& text, size_t size, int64_t max_calls = 100) {
  ToolCallReader reader(max_calls);
  Read out;
  for (size_t at = 0; at < text.size(); at += size) Take(reader.Push(text.substr(at, size)), out);
  Take(reader.Flush(), out);
  return out;
}

std::string Call(const std::string& json) { return "<tool_call>\n" + json + "\n</tool_call>"; }

TEST(ToolCallReader, FindsCallsWhateverPiecesTheyComeIn) {
  const std::string f = Call(R"({"name": "f", "arguments": {"b": 1, "a": "x"}})");
  const std::string g = Call(R"({"name": "g", "arguments": {}})");
  const std::string odd =
      Call(R"({"name": "f", "arguments": {"a": "</tool_call> \" <tool_call>"}})");
  const std::vector<std::pair<std::string, Read>> cases = {
      {"", {"", {}}},
      {"plain < text \n ", {"plain < text \n ", {}}},
      {f, {"", {R"(f{"b":1,"a":"x"})"}}},
      {f + "\n" + g, {"", {R"(f{"b":1,"a":"x"})", "g{}"}}},
      {"I look. \n" + g + "\n\n", {"I look.", {"g{}"}}},
      {g + "\nDone.", {"Done.", {"g{}"}}},
      {odd, {"", {R"(f{"a":"</tool_call> \" <tool_call>"})"}}},
      {"<tool_cal" + g, {"<tool_cal", {"g{}"}}},
      {"<<tool_call", {"<<tool_call", {}}},
      {"x <tool_call>\n{\"name\": \"f\"", {"x <tool_call>\n{\"name\": \"f\"", {}}},
      {Call("not json") + "!", {Call("not json") + "!", {}}},
      {Call("[1]"), {Call("[1]"), {}}},
      {Call(R"({"arguments": {}})"), {Call(R"({"arguments": {}})"), {}}},
      {Call(R"({"name": "f", "arguments": 5})"), {Call(R"({"name": "f", "arguments": 5})"), {}}},
      {Call(R"({"name": "f"})"), {"", {"f{}"}}},
      {Call(R"({"name": "f", "parameters": {"a": 1}})"), {"", {R"(f{"a":1})"}}},
      {Call(R"({"name": "f", "arguments": "{\"a\":1}"})"), {"", {R"(f{"a":1})"}}},
      {Call("x") + g, {Call("x"), {"g{}"}}}};
  for (const auto& [text, expected] : cases) {
    for (const size_t size : {size_t{1}, size_t{2}, size_t{3}, size_t{7}, size_t{1000}}) {
      const Read got = ReadAll(text, size);
      EXPECT_EQ(got.content, expected.content) << text << " by " << size;
      EXPECT_EQ(got.calls, expected.calls) << text << " by " << size;
    }
  }
}

TEST(ToolCallReader, LeavesOutWhatFollowsTheLastCallThatIsWanted) {
  const std::string g = Call(R"({"name": "g", "arguments": {}})");
  EXPECT_EQ(ReadAll("a" + g + g + "b", 4, 1), (Read{"a", {"g{}"}}));
}

StatusOr<RequestSpec> Decode(const std::string& more) {
  POLYAD_ASSIGN_OR_RETURN(
      const OpenAiRequest ask,
      ParseOpenAiRequest(OpenAiKind::kChat,
                         R"({"messages": [{"role": "user", "content": "hi"}])" + more + "}"));
  return DecodeGenerate(ask.generate, {"base-model", 1000, 512, 4096});
}

constexpr char kTools[] =
    R"(, "tools": [{"type": "function", "function": {"name": "f", "description": "D",
        "parameters": {"properties": {"z": {"type": "integer"}, "a": {}}, "required": ["z"]},
        "strict": true}}, {"type": "function", "function": {"name": "g"}}])";

TEST(OpenAiTools, ToolsKeepTheirOrderAndMakeTheConstraint) {
  const auto spec = Decode(std::string(kTools) + R"(, "tool_choice": "required")");
  ASSERT_TRUE(spec.ok()) << spec.status();
  const auto& chat = std::get<ChatPrompt>(spec->prompt);
  ASSERT_EQ(chat.tools.size(), 2u);
  EXPECT_EQ(chat.tools[0].description, "D");
  EXPECT_EQ(chat.tools[0].parameters,
            R"({"properties":{"z":{"type":"integer"},"a":{}},"required":["z"]})");
  EXPECT_EQ(chat.tools[1].parameters, "");
  EXPECT_EQ(spec->constraint.kind, Kind::kToolCalls);
  EXPECT_TRUE(spec->constraint.several);
  ASSERT_EQ(spec->constraint.tools.size(), 2u);
  EXPECT_EQ(spec->constraint.tools[0].parameters,
            R"({"properties":{"z":{"type":"integer"},"a":{}},"required":["z"],"type":"object"})");
  EXPECT_EQ(spec->constraint.tools[1].name, "g");
}

TEST(OpenAiTools, TheChoiceRules) {
  const std::string tools = kTools;
  const auto max_calls = [](const std::string& more) {
    return ParseOpenAiRequest(OpenAiKind::kChat,
                              R"({"messages": [{"role": "user", "content": "hi"}])" + more + "}")
        ->max_tool_calls;
  };
  EXPECT_TRUE(Decode(tools)->constraint.empty());
  EXPECT_EQ(max_calls(tools), kMaxChatTools);
  EXPECT_EQ(max_calls(tools + R"(, "parallel_tool_calls": false)"), 1);
  EXPECT_EQ(max_calls(tools + R"(, "tool_choice": "none")"), 0);
  EXPECT_EQ(max_calls(R"(, "tools": [], "tool_choice": "auto")"), 0);
  EXPECT_TRUE(
      std::get<ChatPrompt>(Decode(tools + R"(, "tool_choice": "none")")->prompt).tools.empty());
  EXPECT_FALSE(Decode(tools + R"(, "tool_choice": "required", "parallel_tool_calls": false)")
                   ->constraint.several);
  const auto named =
      Decode(tools + R"(, "tool_choice": {"type": "function", "function": {"name": "g"}})");
  ASSERT_EQ(named->constraint.tools.size(), 1u);
  EXPECT_EQ(named->constraint.tools[0].name, "g");
  EXPECT_FALSE(named->constraint.several);
}

TEST(OpenAiTools, CallsAndAnswersAreReadFromTheHistory) {
  const auto ask = ParseOpenAiRequest(
      OpenAiKind::kChat, R"({"messages": [{"role": "assistant", "content": null, "refusal": null,
        "tool_calls": [{"id": "1", "type": "function", "index": 0,
                        "function": {"name": "f", "arguments": "{\"a\": 1}"}}]},
       {"role": "tool", "tool_call_id": "1", "name": "f", "content": "ok"}]})");
  ASSERT_TRUE(ask.ok()) << ask.status();
  const auto spec = DecodeGenerate(ask->generate, {"base-model", 1000, 512, 4096});
  ASSERT_TRUE(spec.ok()) << spec.status();
  const auto& messages = std::get<ChatPrompt>(spec->prompt).messages;
  EXPECT_EQ(messages[0].tool_calls[0].arguments, R"({"a": 1})");
  EXPECT_EQ(messages[1].tool_call_id, "1");
  EXPECT_EQ(messages[1].name, "f");
}

TEST(OpenAiTools, WhatIsRefusedIsNamed) {
  const std::string function = R"("type": "function", "function": )";
  const auto tool = [&](const std::string& body) {
    return R"(, "tools": [{)" + function + body + "}]";
  };
  std::string many = R"(, "tools": [)";
  for (int i = 0; i < 129; ++i)
    many += (i > 0 ? ",{" : "{") + function + R"({"name": "f)" + std::to_string(i) + "\"}}";
  const std::string bad_call = R"(, "messages": [{"role": "assistant", "tool_calls": [)";
  const std::vector<std::pair<std::string, std::string>> cases = {
      {R"(, "tool_choice": "required")", "tool_choice"},
      {std::string(kTools) + R"(, "tool_choice": "any")", "tool_choice"},
      {std::string(kTools) + R"(, "tool_choice": {"type": "function"})", "tool_choice"},
      {std::string(kTools) + R"(, "tool_choice": {)" + function + R"({"name": 5}})", "tool_choice"},
      {std::string(kTools) + R"(, "tool_choice": {)" + function + R"({"name": "h"}})",
       "constraint.tool_calls.name"},
      {std::string(kTools) + R"(, "tool_choice": "required", "guided_regex": "a")", "tool_choice"},
      {std::string(kTools) + R"(, "parallel_tool_calls": 1)", "parallel_tool_calls"},
      {R"(, "tools": 5)", "tools"},
      {R"(, "tools": [{"function": {"name": "f"}}])", "tools"},
      {R"(, "tools": [{"type": "other", "function": {"name": "f"}}])", "tools"},
      {many + "]", "tools"},
      {tool("{}"), "chat.tools.name"},
      {tool(R"({"name": "a b"})"), "chat.tools.name"},
      {tool(R"({"name": ")" + std::string(65, 'a') + R"("})"), "chat.tools.name"},
      {tool(R"({"name": 5})"), "tools.name"},
      {tool(R"({"name": "f", "description": 5})"), "tools.description"},
      {tool(R"({"name": "f", "parameters": []})"), "tools.parameters"},
      {tool(R"({"name": "f", "strict": 1})"), "tools.strict"},
      {tool(R"({"name": "f", "extra": 1})"), "tools.extra"},
      {tool(R"({"name": "f", "parameters": {"type": "string"}})") +
           R"(, "tool_choice": "required")",
       "chat.tools.parameters"},
      {tool(R"({"name": "f", "parameters": {"title": ")" + std::string(66'000, 'x') + R"("}})"),
       "chat.tools.parameters"}};
  for (const auto& [more, field] : cases) {
    const auto spec = Decode(more);
    ASSERT_FALSE(spec.ok()) << more.substr(0, 200);
    EXPECT_EQ(spec.status().code(), absl::StatusCode::kInvalidArgument) << spec.status();
    EXPECT_EQ(BlamedField(spec.status()), field) << more.substr(0, 200);
  }
}

TEST(ToolCodec, AMessagesCallsAreBounded) {
  const auto refused = [](const std::function<void(v1::ChatMessage&)>& spoil) {
    v1::GenerateRequest request;
    v1::ChatMessage& message = *request.mutable_chat()->add_messages();
    message.set_role("assistant");
    message.add_tool_calls()->set_name("f");
    spoil(message);
    return BlamedField(DecodeGenerate(request, {"base-model", 1000, 512, 4096}).status());
  };
  EXPECT_EQ(refused([](v1::ChatMessage&) {}), "");
  EXPECT_EQ(refused([](v1::ChatMessage& m) { m.mutable_tool_calls(0)->set_name(""); }),
            "chat.messages.tool_calls.name");
  EXPECT_EQ(refused([](v1::ChatMessage& m) { m.mutable_tool_calls(0)->set_arguments("[]"); }),
            "chat.messages.tool_calls.arguments");
  EXPECT_EQ(
      refused([](v1::ChatMessage& m) { m.mutable_tool_calls(0)->set_id(std::string(257, 'x')); }),
      "chat.messages.tool_calls.id");
  EXPECT_EQ(refused([](v1::ChatMessage& m) { m.set_tool_call_id(std::string(257, 'x')); }),
            "chat.messages.tool_call_id");
  EXPECT_EQ(refused([](v1::ChatMessage& m) { m.set_name(std::string(65, 'x')); }),
            "chat.messages.name");
  EXPECT_EQ(refused([](v1::ChatMessage& m) {
              for (int i = 0; i < 128; ++i) m.add_tool_calls()->set_name("f");
            }),
            "chat.messages.tool_calls");
  EXPECT_EQ(refused([](v1::ChatMessage& m) {
              m.mutable_tool_calls(0)->set_arguments("{\"a\":\"" + std::string(4100, 'x') + "\"}");
            }),
            "chat.messages.content");
}

}  // namespace
}  // namespace polyad
