#include "engine/constraint/json_schema.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ctime>

#include "tests/engine/constraint/byte_tokenizer.h"

namespace polyad {
namespace {

using ::testing::HasSubstr;
constexpr auto kSchema = ConstraintSpec::Kind::kJsonSchema;

bool Matches(const std::string& schema, std::string_view text) {
  const auto constraint = CompileText(kSchema, schema);
  POLYAD_CHECK(constraint.ok(), std::string(constraint.status().message()).c_str());
  return Takes(**constraint, text);
}

constexpr char kPerson[] = R"({"type": "object", "properties": {
  "name": {"type": "string", "minLength": 1, "maxLength": 3}, "age": {"type": "integer", "minimum": 0, "maximum": 130},
  "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2}},
  "required": ["name", "age"], "additionalProperties": false})";

TEST(JsonSchema, ObjectsHaveTheirPropertiesInOrder) {
  EXPECT_TRUE(Matches(kPerson, R"({"name": "Bob", "age": 42})"));
  EXPECT_TRUE(Matches(kPerson, R"({"name":"B","age":0,"tags":["a", "b"]})"));
  EXPECT_TRUE(Matches(kPerson, "{\n  \"name\": \"B\",\n\t\"age\": 130,\n  \"tags\": []\n}"));
  for (const char* text :
       {R"({"age": 42, "name": "Bob"})", R"({"name": "Bobb", "age": 42})",
        R"({"name": "", "age": 1})", R"({"name": "B", "age": 131})", R"({"name": "B", "age": -1})",
        R"({"name": "B", "age": 042})", R"({"name": "B", "age": 1, "tags": ["a","a","a"]})",
        R"({"name": "B", "age": 1, "x": 1})", R"({"name": "B", "age": 1,})", R"({"name": "B"})",
        "{}", R"({"name": "B"  , "age": 1})"}) {
    EXPECT_FALSE(Matches(kPerson, text)) << text;
  }
}

TEST(JsonSchema, CharactersOfStringsMayBeEscaped) {
  const std::string two = R"({"type": "string", "minLength": 2, "maxLength": 2})";
  for (const char* text :
       {R"("ab")", R"("\n\"")", R"("\u00e9x")", "\"\xC3\xA9\xF0\x9F\x98\x80\"", R"("\/\\")"}) {
    EXPECT_TRUE(Matches(two, text)) << text;
  }
  for (const char* text : {R"("a")", R"("abc")", R"("\ud83d\ude00")", "\"a\n\"", R"("\x41a")",
                           R"("ab)", "\"\xC3z\""}) {
    EXPECT_FALSE(Matches(two, text)) << text;
  }
  const std::string pattern = R"({"type": "string", "pattern": "^[a\"\\\\\\n]+$", "maxLength": 3})";
  EXPECT_TRUE(Matches(pattern, R"("a\"\\")"));
  EXPECT_TRUE(Matches(pattern, R"("\n")"));
  EXPECT_FALSE(Matches(pattern, R"("aaaa")"));
  EXPECT_FALSE(Matches(pattern, R"("")"));
  EXPECT_FALSE(Matches(pattern, R"("n")"));
}

TEST(JsonSchema, SchemasMayReferToThemselves) {
  const std::string tree = R"({"$ref": "#/$defs/node", "$defs": {"node": {"type": "object",
    "properties": {"v": {"type": "integer"}, "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
    "required": ["v", "next"], "additionalProperties": false}}})";
  EXPECT_TRUE(Matches(tree, R"({"v": 1, "next": {"v": -2, "next": null}})"));
  EXPECT_FALSE(Matches(tree, R"({"v": 1, "next": {"v": 2}})"));
  std::string deep = "null";
  for (int i = 0; i < 30; ++i) deep = "{\"v\":" + std::to_string(i) + ",\"next\":" + deep + "}";
  EXPECT_TRUE(Matches(tree, deep));
}

TEST(JsonSchema, SchemasThatApplyTogetherAreMerged) {
  const std::string both =
      R"({"allOf": [{"type": ["integer", "string"], "minimum": 3}, {"type": "number", "maximum": 5}]})";
  EXPECT_TRUE(Matches(both, "4"));
  EXPECT_FALSE(Matches(both, "6"));
  EXPECT_FALSE(Matches(both, "\"4\""));
  const std::string any =
      R"({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
    "anyOf": [{"required": ["a"]}, {"required": ["b"]}]})";
  EXPECT_TRUE(Matches(any, R"({"b": 1})"));
  EXPECT_FALSE(Matches(any, "{}"));
  const std::string one =
      R"({"oneOf": [{"type": "object", "properties": {"k": {"const": "x"}, "n": {"type": "null"}},
     "required": ["k", "n"]}, {"type": "object", "properties": {"k": {"const": "y"}}, "required": ["k"]}]})";
  EXPECT_TRUE(Matches(one, R"({"k": "x", "n": null})"));
  EXPECT_TRUE(Matches(one, R"({"k": "y"})"));
  EXPECT_FALSE(Matches(one, R"({"k": "x"})"));
}

TEST(JsonSchema, UndeclaredPropertiesComeWhereTheyAreAskedFor) {
  const std::string more =
      R"({"type": "object", "properties": {"a": {"type": "null"}, "ab": {"type": "null"}},
    "additionalProperties": {"type": "integer"}})";
  EXPECT_TRUE(Matches(more, R"({"a": null, "x": 1, "abc": 2})"));
  EXPECT_TRUE(Matches(more, R"({"": 1})"));
  EXPECT_FALSE(Matches(more, R"({"x": 1, "ab": 2})"));
  EXPECT_FALSE(Matches(more, R"({"x": 1, "\u0061": 2})"));
  EXPECT_FALSE(Matches(more, R"({"x": null})"));
  EXPECT_TRUE(Matches(R"({"type": "object"})", R"({"x": [1, {"y": "z"}], "w": -1.5e3})"));
  EXPECT_FALSE(Matches(R"({"type": "object", "properties": {"a": {}}})", R"({"x": 1})"));
}

TEST(JsonSchema, NumbersKeepTheirBounds) {
  const std::string decimal = R"({"type": "number", "exclusiveMinimum": -1.5, "maximum": 20.25})";
  for (const char* text : {"0", "-1", "-1.499", "20.25", "20.249999", "19", "0.5", "-0.000001"}) {
    EXPECT_TRUE(Matches(decimal, text)) << text;
  }
  for (const char* text :
       {"-1.5", "-2", "20.26", "21", "-0", "00", "1e1", "20.250001", "0.1234567", "1."}) {
    EXPECT_FALSE(Matches(decimal, text)) << text;
  }
  const std::string above = R"({"type": "integer", "minimum": 95})";
  for (const char* text : {"95", "99", "100", "1234567", "999999999999999"})
    EXPECT_TRUE(Matches(above, text)) << text;
  for (const char* text : {"94", "9", "-95", "095", "1000000000000000"})
    EXPECT_FALSE(Matches(above, text)) << text;
}

TEST(JsonSchema, RefusesWhatItDoesNotServeByNameAndPlace) {
  const std::vector<std::pair<std::string, std::string>> refused = {
      {R"({"not": {}})", "'not'"},
      {R"({"properties": {"a": {"if": {}}}})", "at '/properties/a': keyword 'if'"},
      {R"({"patternProperties": {}})", "patternProperties"},
      {R"({"items": {"contains": {}}})", "at '/items': keyword 'contains'"},
      {R"({"type": "array", "uniqueItems": true})", "uniqueItems"},
      {R"({"type": "integer", "multipleOf": 3})", "multipleOf"},
      {R"({"type": "string", "format": "regex"})", "format: expected one of date, time"},
      {R"j({"type": "string", "pattern": "(?=a)"})j", "pattern: at byte"},
      {R"({"type": "strin"})", "type names"},
      {R"({"nullable": true})", "nullable"},
      {R"({"$ref": "#/$defs/missing"})", "$ref"},
      {R"({"$ref": "http://example.com/a.json"})", "$ref"},
      {R"({"oneOf": [{"type": "integer"}, {"type": "number"}]})", "oneOf"},
      {R"({"anyOf": []})", "anyOf"},
      {R"({"allOf": [{"pattern": "a"}, {"pattern": "b"}]})", "pattern"},
      {R"({"type": "object", "minProperties": 3})", "minProperties"},
      {R"({"type": "array", "items": [{}]})", "prefixItems"},
      {R"({"enum": [1], "multipleOf": 2})", "multipleOf"},
      {R"({"type": "string", "minLength": -1})", "a count"},
      {R"({"type": "string", "minLength": 5, "maxLength": 4})", "minLength"},
      {R"({"required": "a"})", "required"}};
  for (const auto& [schema, why] : refused) {
    const Status status = CompileText(kSchema, schema).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << schema << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(why)) << schema;
    EXPECT_THAT(std::string(status.message()), HasSubstr("constraint.json_schema: ")) << schema;
  }
}

std::string Nested(const std::string& open, int depth, const std::string& inner,
                   const std::string& close) {
  std::string text;
  for (int i = 0; i < depth; ++i) text += open;
  text += inner;
  for (int i = 0; i < depth; ++i) text += close;
  return text;
}

// Definitions d0..d(n-1), each made of the next by `body` with @ for its name.
std::string Chain(int n, const std::string& body, const std::string& last) {
  std::string schema = R"({"$ref": "#/$defs/d0", "$defs": {)";
  for (int i = 0; i < n; ++i) {
    std::string one = i + 1 < n ? body : last;
    for (size_t at = one.find('@'); at != one.npos; at = one.find('@')) {
      one.replace(at, 1, "#/$defs/d" + std::to_string(i + 1));
    }
    schema += (i > 0 ? ", \"d" : "\"d") + std::to_string(i) + "\": " + one;
  }
  return schema + "}}";
}

std::vector<std::string> HostileSchemas() {
  std::vector<std::string> schemas = {
      "",
      "{",
      "[]",
      "3",
      "null",
      "\"a\"",
      "{\"a\": 1, \"a\": 2}",
      "\xFF",
      "{}x",
      Nested(R"({"items": )", 40, "{}", "}"),
      Nested("[", 100'000, "", "]"),
      Nested(R"({"allOf": [)", 16, "{}", "]}") + "x",
      "{\"description\": \"" + std::string(70'000, 'a') + "\"}",
      R"({"$ref": "#"})",
      R"({"$ref": 5})",
      R"({"$ref": "#/"})",
      R"({"$ref": "#a"})",
      R"({"$ref": ""})",
      R"({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}})",
      R"({"allOf": [{"$ref": "#"}]})",
      R"({"anyOf": [{"$ref": "#"}]})",
      R"({"type": "string", "$ref": "#"})",
      R"({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]})",
      R"({"type": "array", "items": {"$ref": "#"}, "minItems": 1})",
      R"({"type": "string", "minLength": 100000000})",
      R"({"type": "string", "maxLength": 1e14})",
      R"({"type": "string", "maxLength": 1e300})",
      R"({"type": "string", "minLength": 0.5})",
      R"({"type": "array", "minItems": 100000000})",
      R"({"type": "array", "maxItems": 99999999})",
      R"({"type": "array", "minItems": 3, "maxItems": 2})",
      R"({"type": "array", "maxItems": -1})",
      R"({"type": "object", "maxProperties": 99999999})",
      R"({"type": "object", "minProperties": 99999999})",
      R"({"type": "integer", "minimum": 5, "maximum": 4})",
      R"({"type": "integer", "minimum": 1e300})",
      R"({"type": "number", "exclusiveMinimum": 1, "exclusiveMaximum": 1})",
      R"({"type": "integer", "minimum": 0.1, "maximum": 0.9})",
      R"({"type": "number", "minimum": "a"})",
      R"j({"type": "string", "pattern": "(((a{999}){999}){999}){999}"})j",
      R"j({"type": "string", "pattern": "(a*)*b("})j",
      R"({"type": "string", "pattern": "a", "maxLength": 1000000})",
      R"({"type": "string", "pattern": "[^\\d\\D]"})",
      R"({"type": "string", "pattern": 5})",
      R"({"type": "string", "pattern": ")" + std::string(5000, 'a') + "\"}",
      R"({"enum": []})",
      R"({"enum": 5})",
      R"({"const": 1, "enum": [2]})",
      R"({"type": "string", "enum": [1, 2]})",
      "false",
      R"({"anyOf": [false]})",
      R"({"type": []})",
      R"({"type": 3})",
      R"({"items": false, "minItems": 1, "type": "array"})",
      R"({"properties": [], "type": "object"})",
      R"({"required": [1], "type": "object"})",
      R"({"additionalProperties": 5, "type": "object"})",
      R"({"properties": {"a": 5}, "type": "object"})",
      R"({"prefixItems": {}, "type": "array"})",
      Chain(30, R"({"allOf": [{"$ref": "@"}, {"$ref": "@"}]})", "{}"),
      Chain(40, R"({"allOf": [{"$ref": "@"}]})", "{}"),
      Chain(
          30,
          R"({"type": "array", "prefixItems": [{"$ref": "@"}, {"$ref": "@"}], "minItems": 2, "items": false})",
          "false"),
  };
  std::string many = R"({"oneOf": [)";
  for (int i = 0; i < 100; ++i) many += "{\"const\": " + std::to_string(i) + "},";
  schemas.push_back(many + "{}]}");
  std::string wide = R"({"enum": [)";
  for (int i = 0; i < 900; ++i)
    wide += "\"" + std::string(60, static_cast<char>('a' + i % 26)) + std::to_string(i) + "\",";
  schemas.push_back(wide + "1]}");
  return schemas;
}

TEST(JsonSchema, HostileSchemasAreRefusedQuickly) {
  const std::vector<std::string> schemas = HostileSchemas();
  EXPECT_GE(schemas.size(), 60u);
  for (const std::string& schema : schemas) {
    const std::clock_t begin = std::clock();  // of the processor: others may use the machine
    const Status status = CompileText(kSchema, schema).status();
    const double seconds = static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << schema.substr(0, 200) << status;
    EXPECT_LT(seconds, 2.0) << schema.substr(0, 200);
  }
}

// Many ways to the same schema are one rule: what looks exponential is small.
TEST(JsonSchema, SharedDefinitionsCostTheirNodesOnce) {
  const std::string doubling = Chain(
      30, R"({"type": "array", "prefixItems": [{"$ref": "@"}, {"$ref": "@"}], "items": false})",
      R"({"type": "null"})");
  EXPECT_TRUE(Matches(doubling, "[[[]], [[], []]]"));
  EXPECT_FALSE(Matches(doubling, "[[], [], []]"));
}

}  // namespace
}  // namespace polyad
