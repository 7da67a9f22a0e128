#include "engine/io/json.h"

#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace polyad {
namespace {

using ::testing::HasSubstr;

JsonFields Fields(const Json& json) { return *JsonFields::Of(json, "f.json"); }

Json MustParse(const std::string& text) {
  auto json = ParseJson(text, "f.json", JsonLimits{});
  EXPECT_TRUE(json.ok()) << json.status();
  return *std::move(json);
}

TEST(JsonTest, RefusesMalformedText) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "is empty"},
      {"\xef\xbb\xbf{}", "byte order mark"},
      {std::string("\xff\xfe{\0", 4), "UTF-16"},
      {std::string("\xfe\xff\0{", 4), "UTF-16"},
      {"{", "not valid JSON"},
      {"{} {}", "not valid JSON"},
      {"{'a':1}", "not valid JSON"},
      {"// x\n{}", "not valid JSON"},
      {"NaN", "not valid JSON"},
      {"[1e999]", "not valid JSON"},
      {"\"\xc3\"", "not valid JSON"},
      {"{\"a\":1,\"a\":2}", "duplicate key 'a'"},
      {"{\"a\":{\"b\":1,\"b\":2}}", "duplicate key 'b'"},
  };
  for (const auto& [text, message] : cases) {
    const auto json = ParseJson(text, "f.json", JsonLimits{});
    ASSERT_FALSE(json.ok()) << text;
    EXPECT_THAT(std::string(json.status().message()), HasSubstr(message));
    EXPECT_THAT(std::string(json.status().message()), HasSubstr("f.json"));
  }
}

TEST(JsonTest, HoldsItsLimits) {
  JsonLimits limits;
  limits.max_bytes = 100;
  limits.max_depth = 3;
  limits.max_values = 10;
  limits.max_members = 2;
  EXPECT_TRUE(ParseJson("[[[1]]]", "f", limits).ok());
  EXPECT_FALSE(ParseJson("[[[[1]]]]", "f", limits).ok());
  EXPECT_TRUE(ParseJson("[1,2,3,4,5,6,7,8,9]", "f", limits).ok());
  EXPECT_FALSE(ParseJson("[1,2,3,4,5,6,7,8,9,10]", "f", limits).ok());
  EXPECT_TRUE(ParseJson("{\"a\":1,\"b\":2}", "f", limits).ok());
  EXPECT_FALSE(ParseJson("{\"a\":1,\"b\":2,\"c\":3}", "f", limits).ok());
  EXPECT_FALSE(ParseJson(std::string(101, ' '), "f", limits).ok());
}

TEST(JsonTest, SurvivesADepthBomb) {
  JsonLimits limits;
  limits.max_bytes = 1 << 24;
  const auto json = ParseJson(std::string(10'000'000, '['), "f", limits);
  EXPECT_EQ(json.status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(JsonTest, OrderedJsonKeepsFileOrder) {
  const auto json = ParseOrderedJson("{\"z\":1,\"a\":2,\"m\":3}", "f", JsonLimits{});
  ASSERT_TRUE(json.ok());
  std::string keys;
  for (const auto& [key, value] : json->items()) keys += key;
  EXPECT_EQ(keys, "zam");
}

TEST(JsonTest, OrderedJsonBoundsItsMembers) {
  std::string text = "{";
  for (int i = 0; i < 5000; ++i) text += (i == 0 ? "\"" : ",\"") + std::to_string(i) + "\":0";
  EXPECT_FALSE(ParseOrderedJson(text + "}", "f", JsonLimits{}).ok());
}

TEST(JsonFieldsTest, NamesKeyExpectationAndFinding) {
  const Json json = MustParse("{\"hidden_size\":\"wide\"}");
  EXPECT_EQ(Fields(json).Int("hidden_size", 1, 65536).status().message(),
            "f.json: key 'hidden_size': expected an integer in [1, 65536], got the string 'wide'");
}

TEST(JsonFieldsTest, IntegersAreIntegersInRange) {
  const Json json = MustParse(
      "{\"ok\":7,\"low\":0,\"float\":7.0,\"big\":18446744073709551615,\"bool\":true,\"null\":"
      "null}");
  const JsonFields fields = Fields(json);
  EXPECT_EQ(*fields.Int("ok", 1, 10), 7);
  for (const char* key : {"low", "float", "big", "bool", "null", "absent"}) {
    EXPECT_FALSE(fields.Int(key, 1, 10).ok()) << key;
  }
  EXPECT_EQ(*fields.IntOr("null", 5, 1, 10), 5);
  EXPECT_EQ(*fields.IntOr("absent", 5, 1, 10), 5);
  EXPECT_FALSE(fields.IntOr("low", 5, 1, 10).ok());
}

TEST(JsonFieldsTest, OtherTypesAreChecked) {
  const Json json =
      MustParse("{\"n\":1.5,\"b\":true,\"s\":\"x\",\"l\":[\"a\"],\"m\":[1],\"o\":{}}");
  const JsonFields fields = Fields(json);
  EXPECT_EQ(*fields.Number("n", 0, 2), 1.5);
  EXPECT_FALSE(fields.Number("n", 0, 1).ok());
  EXPECT_FALSE(fields.Number("s", 0, 1).ok());
  EXPECT_TRUE(*fields.BoolOr("b", false));
  EXPECT_FALSE(fields.BoolOr("n", false).ok());
  EXPECT_EQ(*fields.String("s"), "x");
  EXPECT_FALSE(fields.String("n").ok());
  EXPECT_EQ(fields.StringsOr("l", {})->size(), 1u);
  EXPECT_FALSE(fields.StringsOr("m", {}).ok());
  EXPECT_TRUE(fields.Object("o")->has_value());
  EXPECT_FALSE(fields.Object("absent")->has_value());
  EXPECT_FALSE(fields.Object("l").ok());
}

}  // namespace
}  // namespace polyad
