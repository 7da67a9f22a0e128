#include "engine/constraint/tool_calls.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/engine/constraint/byte_tokenizer.h"

namespace polyad {
namespace {

using ::testing::HasSubstr;

constexpr char kCity[] = R"({"type": "object", "properties": {"city": {"$ref": "#/$defs/name"}},
  "required": ["city"], "$defs": {"name": {"enum": ["Rome", "Bern"]}}})";
constexpr char kNone[] = R"({"type": "object", "additionalProperties": false})";

StatusOr<std::shared_ptr<Constraint>> Compile(std::vector<ToolForm> tools, bool several) {
  ConstraintSpec spec;
  spec.kind = ConstraintSpec::Kind::kToolCalls;
  spec.tools = std::move(tools);
  spec.several = several;
  return Constraint::Compile(spec, ByteTrie());
}

std::string Call(const std::string& json) { return "<tool_call>\n" + json + "\n</tool_call>"; }

TEST(ToolCalls, AreObjectsBetweenTheirMarks) {
  const auto constraint = Compile({{"get_weather", kCity}, {"get_time", kNone}}, false);
  ASSERT_TRUE(constraint.ok()) << constraint.status();
  const std::string rome = Call(R"({"name": "get_weather", "arguments": {"city": "Rome"}})");
  const std::string now = Call(R"({"name": "get_time", "arguments": {}})");
  EXPECT_TRUE(Takes(**constraint, rome));
  EXPECT_TRUE(Takes(**constraint, now));
  for (const std::string& text :
       {std::string(), rome + "\n", rome + "\n" + now, " " + now, now.substr(0, now.size() - 1),
        Call(R"({"name": "get_weather", "arguments": {"city": "Oslo"}})"),
        Call(R"({"name": "get_weather", "arguments": {}})"),
        Call(R"({"name": "get_time", "arguments": {"city": "Rome"}})"),
        Call(R"({"name": "get", "arguments": {}})"), Call(R"({"arguments": {}})")}) {
    EXPECT_FALSE(Takes(**constraint, text)) << text;
  }
}

TEST(ToolCalls, SeveralStandOnLinesOfTheirOwn) {
  const auto constraint = Compile({{"get_weather", kCity}, {"get_time", kNone}}, true);
  ASSERT_TRUE(constraint.ok()) << constraint.status();
  const std::string bern = Call(R"({"name": "get_weather", "arguments": {"city": "Bern"}})");
  const std::string now = Call(R"({"name": "get_time", "arguments": {}})");
  EXPECT_TRUE(Takes(**constraint, now));
  EXPECT_TRUE(Takes(**constraint, bern + "\n" + now + "\n" + bern));
  for (const std::string& text : {std::string(), bern + now, bern + "\n", bern + "\n\n" + now}) {
    EXPECT_FALSE(Takes(**constraint, text)) << text;
  }
}

TEST(ToolCalls, WhatIsNotServedNamesItsTool) {
  EXPECT_THAT(
      std::string(Compile({{"f", R"({"type": "object", "not": {}})"}}, false).status().message()),
      HasSubstr("constraint.tool_calls: f: "));
  EXPECT_EQ(Compile({}, false).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Compile(std::vector<ToolForm>(129, {"f", kNone}), false).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace polyad
