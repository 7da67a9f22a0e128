#include "engine/text/stop_matcher.h"

#include <gtest/gtest.h>

namespace polyad {
namespace {

// Feeds the text in pieces of `size` bytes and returns all that came out, with the index of the
// stop.
std::pair<std::string, int> Feed(const std::vector<std::string>& stops, const std::string& text,
                                 size_t size, bool include) {
  StopMatcher matcher(stops, include);
  std::string out;
  for (size_t at = 0; at < text.size(); at += size) {
    const StopMatcher::Result result = matcher.Push(std::string_view(text).substr(at, size));
    out += result.text;
    if (result.stop_index.has_value()) return {out, *result.stop_index};
  }
  return {out + matcher.Flush(), -1};
}

TEST(StopMatcherTest, StopsAtTheFirstCompleteStopHoweverTheTextIsCut) {
  const std::string text = "one\n\nUser: two STOP three";
  for (size_t size = 1; size <= text.size(); ++size) {
    EXPECT_EQ(Feed({"STOP", "\n\nUser:"}, text, size, false), std::make_pair(std::string("one"), 1))
        << size;
    EXPECT_EQ(Feed({"STOP", "\n\nUser:"}, text, size, true),
              std::make_pair(std::string("one\n\nUser:"), 1))
        << size;
    EXPECT_EQ(Feed({"absent", ""}, text, size, false), std::make_pair(text, -1)) << size;
  }
}

TEST(StopMatcherTest, OverlappingStopsTakeTheOneCompletedFirst) {
  for (size_t size = 1; size <= 6; ++size) {
    EXPECT_EQ(Feed({"abcd", "bc"}, "xabcdx", size, false), std::make_pair(std::string("xa"), 1));
    EXPECT_EQ(Feed({"bcd", "abcd"}, "xabcdx", size, false), std::make_pair(std::string("x"), 1));
    EXPECT_EQ(Feed({"aab"}, "aaab", size, false), std::make_pair(std::string("a"), 0));
  }
}

TEST(StopMatcherTest, HoldsBackOnlyWhatMayBecomeAStop) {
  StopMatcher matcher({"END"}, false);
  EXPECT_EQ(matcher.Push("abcE").text, "abc");
  EXPECT_EQ(matcher.Push("N").text, "");
  EXPECT_EQ(matcher.Push("x").text, "ENx");
  EXPECT_EQ(matcher.Push("EN").text, "");
  EXPECT_EQ(matcher.Flush(), "EN");
}

TEST(StopMatcherTest, DropsEverythingAfterTheMatch) {
  StopMatcher matcher({"."}, false);
  EXPECT_EQ(matcher.Push("a.b").text, "a");
  EXPECT_EQ(matcher.Push("c").text, "");
  EXPECT_EQ(matcher.Flush(), "");
}

TEST(StopMatcherTest, NeverCutsACharacter) {
  EXPECT_EQ(Feed({"é"}, "caf\xC3\xA9!", 3, false), std::make_pair(std::string("caf"), 0));
  StopMatcher matcher({"é!"}, false);
  EXPECT_EQ(matcher.Push("xé").text, "x");
  EXPECT_EQ(matcher.Push("è").text, "éè");
}

}  // namespace
}  // namespace polyad
