#include "engine/runtime/delivery.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/sim/fake_tokenizer.h"

namespace polyad {
namespace {

class Recorder final : public ResponseSink {
 public:
  bool OnEvent(TokenEvent event) override {
    events.push_back(std::move(event));
    return static_cast<int64_t>(events.size()) != refuse_at;
  }
  std::string text() const {
    std::string all;
    for (const TokenEvent& event : events) {
      if (const auto* tokens = std::get_if<TokensEvent>(&event)) all += tokens->text;
    }
    return all;
  }
  std::vector<FinishEvent> finishes() const {
    std::vector<FinishEvent> all;
    for (const TokenEvent& event : events) {
      if (const auto* finish = std::get_if<FinishEvent>(&event)) all.push_back(*finish);
    }
    return all;
  }
  std::vector<TokenEvent> events;
  int64_t refuse_at = -1;
};

class DeliveryTest : public ::testing::Test {
 protected:
  DeliveryTest()
      : registry_(10, 10), inbox_(10), delivery_({tokenizer_, clock_, inbox_, registry_, nullptr}) {
    request_ = std::make_shared<Request>();
    request_->prompt_tokens = {1, 2};
    sink_ = std::make_shared<Recorder>();
    request_->sink = sink_;
    std::string id;
    number_ = *registry_.Begin(id);
  }

  void Deliver(TokenEvent event, bool ends_with_stop_token = false) {
    EngineOutput output;
    output.number = number_;
    output.request = request_;
    output.event = std::move(event);
    output.ends_with_stop_token = ends_with_stop_token;
    delivery_.Deliver(std::move(output));
  }
  void Prompt() {
    PromptEvent event;
    event.num_prompt_tokens = 2;
    Deliver(std::move(event));
  }
  // One token event for each letter.
  void Letters(const std::string& letters, int32_t choice = 0) {
    for (const char letter : letters) {
      TokensEvent event;
      event.choice = choice;
      event.token_ids = {letter - '`'};
      Deliver(std::move(event));
    }
  }
  void Finish(FinishReason reason, int32_t choice = 0) {
    FinishEvent event;
    event.choice = choice;
    event.reason = reason;
    Deliver(std::move(event));
  }

  FakeTokenizer tokenizer_;
  FakeClock clock_;
  RequestRegistry registry_;
  Inbox inbox_;
  Delivery delivery_;
  std::shared_ptr<Request> request_;
  std::shared_ptr<Recorder> sink_;
  int64_t number_ = 0;
};

TEST_F(DeliveryTest, AddsTheTextAndCountsTheTokens) {
  Prompt();
  Letters("hello");
  Finish(FinishReason::kLength);
  EXPECT_EQ(sink_->text(), "hello");
  ASSERT_EQ(sink_->finishes().size(), 1u);
  EXPECT_EQ(sink_->finishes()[0].usage.completion_tokens, 5);
  EXPECT_EQ(registry_.num_alive(), 0);
  EXPECT_EQ(delivery_.num_streams(), 0u);
}

TEST_F(DeliveryTest, AStopStringEndsTheChoiceAndTellsTheEngine) {
  request_->stopping.stop = {"lo"};
  Prompt();
  Letters("helloworld");
  EXPECT_EQ(sink_->text(), "hel");
  ASSERT_EQ(sink_->finishes().size(), 1u);
  EXPECT_EQ(sink_->finishes()[0].reason, FinishReason::kStop);
  EXPECT_EQ(sink_->finishes()[0].stop_reason, "lo");
  EXPECT_EQ(sink_->finishes()[0].usage.completion_tokens, 5);  // what came later was dropped
  const std::vector<EngineMessage> messages = inbox_.DrainNow();
  ASSERT_EQ(messages.size(), 1u);
  EXPECT_TRUE(std::holds_alternative<StopMatched>(messages[0]));
  // The engine's own finish is not a second one.
  EXPECT_EQ(registry_.num_alive(), 1);
  Finish(FinishReason::kStop);
  EXPECT_EQ(sink_->finishes().size(), 1u);
  EXPECT_EQ(registry_.num_alive(), 0);
}

TEST_F(DeliveryTest, TextHeldForAStopStringComesBeforeTheFinish) {
  request_->stopping.stop = {"lot"};
  Prompt();
  Letters("hello");
  EXPECT_EQ(sink_->text(), "hel");
  Finish(FinishReason::kLength);
  EXPECT_EQ(sink_->text(), "hello");
  EXPECT_TRUE(std::holds_alternative<FinishEvent>(sink_->events.back()));
}

TEST_F(DeliveryTest, StopStringsDoNotCountBeforeTheMinimum) {
  request_->stopping.stop = {"l"};
  request_->stopping.min_tokens = 3;
  Prompt();
  Letters("hello");
  EXPECT_EQ(sink_->text(), "hel");
  EXPECT_EQ(sink_->finishes()[0].usage.completion_tokens, 4);
}

TEST_F(DeliveryTest, AStopTokensTextIsShownOnlyWhenAskedFor) {
  for (const bool include : {false, true}) {
    sink_->events.clear();
    request_->stopping.include_stop = include;
    std::string id;
    if (include) number_ = *registry_.Begin(id);
    Prompt();
    Letters("a");
    TokensEvent stop;
    stop.token_ids = {7};
    Deliver(std::move(stop), /*ends_with_stop_token=*/true);
    Finish(FinishReason::kStop);
    EXPECT_EQ(sink_->text(), include ? "ag" : "a");
    EXPECT_EQ(sink_->finishes()[0].usage.completion_tokens, 2);
  }
}

TEST_F(DeliveryTest, EchoesThePromptToEveryChoice) {
  request_->output.echo = true;
  request_->sampling.num_choices = 2;
  Prompt();
  EXPECT_EQ(sink_->text(), "abab");
}

TEST_F(DeliveryTest, ARefusingSinkHasItsRequestCancelledAndIsSentOnlyTheFinishes) {
  request_->sampling.num_choices = 2;
  sink_->refuse_at = 2;
  Prompt();
  Letters("abc", 0);
  Letters("d", 1);
  EXPECT_EQ(sink_->events.size(), 2u);
  const std::vector<EngineMessage> messages = inbox_.DrainNow();
  ASSERT_EQ(messages.size(), 1u);
  EXPECT_EQ(std::get<CancelRequest>(messages[0]).number, number_);
  Finish(FinishReason::kCancelled, 0);
  Finish(FinishReason::kCancelled, 1);
  EXPECT_EQ(sink_->finishes().size(), 2u);
  EXPECT_EQ(registry_.num_alive(), 0);
}

}  // namespace
}  // namespace polyad
