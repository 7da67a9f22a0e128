// Our interpreter against jinja2 as transformers sets it up (tests/golden/text/chat_goldens.py),
// and the encoding of the rendered text against transformers' way: the ids of the whole rendered
// string.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "engine/text/chat_template.h"
#include "tests/engine/text/golden_files.h"

namespace polyad {
namespace {

using nlohmann::json;

ChatInput InputOf(const json& cases, size_t number) {
  ChatInput input{
      .add_generation_prompt = number % 3 != 2, .bos_token = "<s>", .eos_token = "</s>"};
  for (const json& message : cases["conversations"][number]) {
    input.messages.push_back({.role = message[0], .content = message[1]});
  }
  if (number % 4 == 1) input.flags["enable_thinking"] = false;
  input.now_unix_s = cases["now"].get<int64_t>();
  return input;
}

std::string Join(const std::vector<TextSegment>& segments) {
  std::string text;
  for (const TextSegment& segment : segments) text += segment.text;
  return text;
}

TEST(ChatTemplateGoldenTest, RendersAsJinjaDoes) {
  const json cases = json::parse(ReadGoldenFile("chat_cases.json"));
  ASSERT_GE(cases["cases"].size(), 12u);
  int num_renders = 0;
  for (const json& item : cases["cases"]) {
    const auto parsed = ChatTemplate::Parse(item["source"].get<std::string>());
    ASSERT_TRUE(parsed.ok()) << item["name"] << ": " << parsed.status();
    for (const json& golden : item["renders"]) {
      const auto segments = parsed->Render(InputOf(cases, golden["conversation"]));
      SCOPED_TRACE(item["name"].dump() + " conversation " + golden["conversation"].dump());
      ++num_renders;
      if (golden.contains("error")) {
        ASSERT_FALSE(segments.ok());
        EXPECT_THAT(std::string(segments.status().message()),
                    ::testing::HasSubstr(golden["error"].get<std::string>()));
        continue;
      }
      ASSERT_TRUE(segments.ok()) << segments.status();
      EXPECT_EQ(Join(*segments), golden["text"].get<std::string>());
    }
  }
  EXPECT_GE(num_renders, 90);
}

TEST(ChatTemplateGoldenTest, EncodesOrdinaryMessagesAsTheWholeText) {
  const json cases = json::parse(ReadGoldenFile("chat_cases.json"));
  const auto tokenizer = LoadGoldenTokenizer("smollm2");
  int num_compared = 0;
  for (const json& item : cases["cases"]) {
    const auto parsed = ChatTemplate::Parse(item["source"].get<std::string>());
    ASSERT_TRUE(parsed.ok());
    for (const json& golden : item["renders"]) {
      if (!golden.contains("ids") || golden["ids"].is_null()) continue;
      const auto segments = parsed->Render(InputOf(cases, golden["conversation"]));
      ASSERT_TRUE(segments.ok());
      const auto ids = EncodeChat(*tokenizer, *segments);
      ASSERT_TRUE(ids.ok());
      EXPECT_EQ(*ids, golden["ids"].get<std::vector<int32_t>>())
          << item["name"] << golden["conversation"];
      ++num_compared;
    }
  }
  EXPECT_GE(num_compared, 20);
}

}  // namespace
}  // namespace polyad
