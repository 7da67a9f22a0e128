#include "engine/constraint/regex.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/engine/constraint/byte_tokenizer.h"

namespace polyad {
namespace {

using ::testing::HasSubstr;
constexpr auto kRegex = ConstraintSpec::Kind::kRegex;

bool Matches(const std::string& pattern, std::string_view text) {
  const auto constraint = CompileText(kRegex, pattern);
  POLYAD_CHECK(constraint.ok(), pattern.c_str());
  return Takes(**constraint, text);
}

TEST(Regex, TakesTheWholeText) {
  EXPECT_TRUE(Matches("ab*c", "abbbc"));
  EXPECT_FALSE(Matches("ab*c", "abbb"));
  EXPECT_FALSE(Matches("ab*c", "abcc"));
  EXPECT_TRUE(Matches("^(a|bc){2,3}$", "abca"));
  EXPECT_FALSE(Matches("(a|bc){2,3}", "bc"));
  EXPECT_TRUE(Matches("x{,2}", ""));
  EXPECT_TRUE(Matches("a{b", "a{b"));
  EXPECT_TRUE(Matches("(?:a+?)(?P<n>b)", "aab"));
  EXPECT_TRUE(Matches("", ""));
  EXPECT_TRUE(Matches("a||b", ""));
}

TEST(Regex, ReadsClassesAndEscapes) {
  EXPECT_TRUE(Matches("[^a-c\\d\\]-]", "z"));
  EXPECT_FALSE(Matches("[^a-c\\d\\]-]", "]"));
  EXPECT_FALSE(Matches("[^a-c\\d\\]-]", "5"));
  EXPECT_TRUE(Matches("[]a]", "]"));
  EXPECT_TRUE(Matches("\\x41\\u00e9\\x{20AC}\\t\\.", "A\xC3\xA9\xE2\x82\xAC\t."));
  EXPECT_TRUE(Matches("\\w\\W\\s\\S\\D", "_- xx"));
  EXPECT_FALSE(Matches(".", "\n"));
}

TEST(Regex, CharactersAreWholeUtf8) {
  for (const char* text :
       {"\x7F", "\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80", "\xED\x9F\xBF", "\xEE\x80\x80",
        "\xEF\xBF\xBF", "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF"}) {
    EXPECT_TRUE(Matches(".", text)) << testing::PrintToString(text);
  }
  for (const char* text : {"\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x80\x80", "\xED\xA0\x80",
                           "\xF0\x80\x80\x80", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xC3"}) {
    EXPECT_FALSE(Matches("[^a]", text)) << testing::PrintToString(text);
  }
}

TEST(Regex, RefusesWhatIsNotRegularByName) {
  const std::vector<std::pair<std::string, std::string>> refused = {{"(?=a)", "look-around"},
                                                                    {"(?<!a)b", "look-around"},
                                                                    {"(?i)a", "flags"},
                                                                    {"(a)\\1", "references"},
                                                                    {"\\bx", "\\b"},
                                                                    {"\\p{L}", "\\p"},
                                                                    {"a++", "possessive"},
                                                                    {"a**", "one quantifier"},
                                                                    {"*a", "before a quantifier"},
                                                                    {"a^b", "^ only"},
                                                                    {"a$b", "nothing behind $"},
                                                                    {"(a$)", "$ only"},
                                                                    {"(a", ")"},
                                                                    {"a)", "group"},
                                                                    {"[a", "]"},
                                                                    {"[b-a]", "in order"},
                                                                    {"a{3,2}", "counts"},
                                                                    {"a{20000}", "counts"},
                                                                    {"[[:alpha:]]", "POSIX"},
                                                                    {"\\", "behind \\"},
                                                                    {"\\x4", "hexadecimal"},
                                                                    {"\\ud800", "hexadecimal"}};
  for (const auto& [pattern, why] : refused) {
    const Status status = CompileText(kRegex, pattern).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << pattern;
    EXPECT_THAT(std::string(status.message()), HasSubstr(why)) << pattern;
    EXPECT_THAT(std::string(status.message()), HasSubstr("constraint.regex: at byte")) << pattern;
  }
}

TEST(Regex, RefusesWhatWouldBeTooLarge) {
  for (const char* pattern :
       {"(((a{100}){100}){100}){100}", "(.{9999}){9999}",
        "(((((){9999}){9999}){9999}){9999}){9999}", "((a|b|c|d|e){999}x){999}"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(CompileText(kRegex, pattern).status())) << pattern;
  }
  EXPECT_TRUE(absl::IsInvalidArgument(CompileText(kRegex, std::string(200, '(')).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(CompileText(kRegex, std::string(5000, 'a')).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(CompileText(kRegex, "[^\\d\\D]").status()));  // nothing
}

TEST(Regex, LengthsAreCountedInCharacters) {
  const StatusOr<CharGraph> graph = ParseRegex("^(\xC3\xA9|b)*$", RegexUse::kSearch);
  ASSERT_TRUE(graph.ok());
  const StatusOr<CharGraph> bounded = WithLength(*graph, 2, 3);
  ASSERT_TRUE(bounded.ok());
  GrammarBuilder builder;
  CharRules chars(builder);
  const RuleId rule = builder.AddRule("root");
  builder.Empty(chars.Emit(builder.StartOf(rule), *bounded, CharForm::kUtf8),
                builder.AcceptOf(rule));
  Constraint constraint(*builder.Build(rule, ByteTrie()->single_bytes()), ByteTrie());
  EXPECT_FALSE(Takes(constraint, "b"));
  EXPECT_TRUE(Takes(constraint, "b\xC3\xA9"));
  EXPECT_TRUE(Takes(constraint,
                    "\xC3\xA9\xC3\xA9"
                    "b"));
  EXPECT_FALSE(Takes(constraint, "bbbb"));
  EXPECT_FALSE(WithLength(*graph, 3, 2).ok());
  EXPECT_FALSE(WithLength(*graph, 0, 1'000'000).ok());
}

}  // namespace
}  // namespace polyad
