#include "engine/constraint/ebnf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/engine/constraint/byte_tokenizer.h"

namespace polyad {
namespace {

using ::testing::HasSubstr;
constexpr auto kGrammar = ConstraintSpec::Kind::kGrammar;

bool Matches(const std::string& grammar, std::string_view text) {
  const auto constraint = CompileText(kGrammar, grammar);
  POLYAD_CHECK(constraint.ok(), std::string(constraint.status().message()).c_str());
  return Takes(**constraint, text);
}

constexpr char kArithmetic[] =
    "# right recursion, groups, classes\n"
    "root ::= expr\n"
    "expr ::= term ((\"+\" | \"-\") term)*\n"
    "term ::= factor ((\"*\" | \"/\") factor)*   # comments end lines\n"
    "factor ::= number | \"(\" expr \")\"\n"
    "number ::= [0-9]+ (\".\" [0-9]{1,2})?\n";

TEST(Ebnf, ReadsGbnf) {
  EXPECT_TRUE(Matches(kArithmetic, "1+2*(3-4.25)/5"));
  EXPECT_TRUE(Matches(kArithmetic, "((((1))))"));
  EXPECT_FALSE(Matches(kArithmetic, "((1)"));
  EXPECT_FALSE(Matches(kArithmetic, "1+"));
  EXPECT_FALSE(Matches(kArithmetic, "1.234"));
  EXPECT_TRUE(Matches("root ::= [^\\n\"]+ \"\\n\" . \"\\x41\"\n", "ab\n!A"));
  EXPECT_TRUE(Matches("root ::= ( \"a\"\n  | \"b\" )? \"\"\n", ""));
}

TEST(Ebnf, ReadsLark) {
  const char* grammar =
      "start: greeting [punctuation] (\"x\"..\"z\")~2..3  // a comment\n"
      "?greeting: \"hi\" -> short\n"
      "         | \"hello\" NAME\n"
      "!punctuation: \"!\" | \"?\"\n"
      "NAME: /[A-Z][a-z]*/\n";
  EXPECT_TRUE(Matches(grammar, "hi!xy"));
  EXPECT_TRUE(Matches(grammar, "helloBobxyz"));
  EXPECT_FALSE(Matches(grammar, "hix"));
  EXPECT_FALSE(Matches(grammar, "hellobobxy"));
}

TEST(Ebnf, RightRecursionNeedsNoDepth) {
  const std::string list = "root ::= \"a\" root | \"b\"\n";
  EXPECT_TRUE(Matches(list, std::string(3000, 'a') + "b"));
}

TEST(Ebnf, NestingEndsWithinItsDepthAndCanAlwaysClose) {
  const auto constraint = *CompileText(kGrammar, "root ::= \"(\" root \")\" | \"x\"\n");
  ConstraintState state;
  std::vector<int32_t> output;
  int depth = 0;
  while (true) {
    const auto mask = *constraint->Mask(output, state);
    if ((mask['(' / 64] >> ('(' % 64) & 1) == 0) break;
    output.push_back('(');
    constraint->Advance(output, state);
    ++depth;
  }
  EXPECT_EQ(depth, kMaxCallDepth);
  const std::string text = std::string(static_cast<size_t>(depth), '(') + "x" +
                           std::string(static_cast<size_t>(depth), ')');
  EXPECT_TRUE(Takes(*constraint, text));
}

TEST(Ebnf, RefusesByLineAndName) {
  const std::vector<std::pair<std::string, std::string>> refused = {
      {"root ::= expr\nexpr ::= expr \"+\" | \"1\"\n", "'expr': expected a rule that takes text"},
      {"root ::= a\na ::= b? a \"x\" | \"y\"\nb ::= \"z\"\n", "left recursion"},
      {"root ::= missing\n", "line 1: expected rules that are defined, got 'missing'"},
      {"other ::= \"a\"\n", "a rule named 'root'"},
      {"begin: \"a\"\n", "a rule named 'start'"},
      {"root ::= \"a\nroot2 ::= \"b\"", "closing quote"},
      {"root ::= \"a\"\nroot ::= \"b\"\n", "line 2: expected one definition"},
      {"start: \"a\"\n%import common.WS\n", "directives"},
      {"start: \"a\"i\n", "flags"},
      {"start: /a/i\n", "flags"},
      {"start.2: \"a\"\n", "priorities"},
      {"root ::= (\"a\"\n", "expected ), got the end"},
      {"root ::= [a\n", "]"},
      {"root ::= \"a\"{3,2}\n", "counts in order"},
      {"root ::= \"a\"{999999999}\n", "at most 50000 states"},
      {"root ::= \"a\" root\n", "something that a text can satisfy"},
      {"", "a rule"},
      {"hello", "a rule"},
      {"root ::= " + std::string(200, '('), "nested"},
      {"root ::= \"\\q\"", "escape"}};
  for (const auto& [grammar, why] : refused) {
    const Status status = CompileText(kGrammar, grammar).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << grammar << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(why)) << grammar;
  }
}

}  // namespace
}  // namespace polyad
