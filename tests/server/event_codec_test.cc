#include "server/event_codec.h"

#include <gtest/gtest.h>

namespace polyad {
namespace {

TEST(EventCodecTest, PromptCarriesTheRequestIdAndTheAdapter) {
  PromptEvent prompt;
  prompt.num_prompt_tokens = 7;
  prompt.num_cached_tokens = 3;
  prompt.adapter = {"pirate", 2, "abcd"};
  prompt.token_logprobs = {{11, -1.5f, 4, {{12, -0.1f}}}};
  v1::GenerateResponse response;
  EncodeEvent(prompt, "mine", response);
  EXPECT_EQ(response.prompt().request_id(), "mine");
  EXPECT_EQ(response.prompt().num_prompt_tokens(), 7);
  EXPECT_EQ(response.prompt().num_cached_tokens(), 3);
  EXPECT_EQ(response.prompt().adapter().name(), "pirate");
  EXPECT_EQ(response.prompt().adapter().version(), 2);
  ASSERT_EQ(response.prompt().token_logprobs_size(), 1);
  EXPECT_EQ(response.prompt().token_logprobs(0).rank(), 4);
  EXPECT_EQ(response.prompt().token_logprobs(0).top(0).token_id(), 12);
}

TEST(EventCodecTest, EveryFinishReasonHasItsOwnValue) {
  const std::pair<FinishReason, v1::Finish::Reason> reasons[] = {
      {FinishReason::kStop, v1::Finish::STOP},
      {FinishReason::kLength, v1::Finish::LENGTH},
      {FinishReason::kCancelled, v1::Finish::CANCELLED},
      {FinishReason::kError, v1::Finish::ERROR}};
  for (const auto& [from, to] : reasons) {
    FinishEvent finish;
    finish.choice = 1;
    finish.reason = from;
    finish.usage = {5, 2, 9};
    finish.timings.queue_ms = 1.5;
    v1::GenerateResponse response;
    EncodeEvent(finish, "", response);
    EXPECT_EQ(response.finish().reason(), to);
    EXPECT_EQ(response.finish().index(), 1);
    EXPECT_EQ(response.finish().usage().completion_tokens(), 9);
    EXPECT_EQ(response.finish().timings().queue_ms(), 1.5);
  }
}

TEST(EventCodecTest, OnlyTokensOfTheSameChoiceMerge) {
  TokensEvent first{0, {1}, {}, "a"};
  TokensEvent second{0, {2, 3}, {{2, -1.0f, 1, {}}}, "b"};
  TokensEvent other{1, {4}, {}, "c"};
  v1::GenerateResponse response;
  EncodeEvent(first, "", response);
  EXPECT_TRUE(MergeIntoDelta(second, response));
  EXPECT_FALSE(MergeIntoDelta(other, response));
  EXPECT_EQ(response.delta().text(), "ab");
  EXPECT_EQ(response.delta().token_ids_size(), 3);
  EXPECT_EQ(response.delta().token_logprobs_size(), 1);
  v1::GenerateResponse finish;
  EncodeEvent(FinishEvent(), "", finish);
  EXPECT_FALSE(MergeIntoDelta(first, finish));
}

}  // namespace
}  // namespace polyad
