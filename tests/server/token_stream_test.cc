#include "server/token_stream.h"

#include <gtest/gtest.h>

#include <deque>

#include "polyad/v1/adapter_admin.pb.h"
#include "server/message_stream.h"

namespace polyad {
namespace {

// A transport that writes when told to.
class ManualChannel final : public MessageChannel {
 public:
  explicit ManualChannel(StreamSource& source) : source_(source) {}
  void StartWrite(const google::protobuf::MessageLite& message) override {
    ASSERT_FALSE(writing);
    writing = true;
    v1::GenerateResponse copy;
    ASSERT_TRUE(copy.ParseFromString(message.SerializeAsString()));
    written.push_back(copy);
    if (eager) Complete(true);
  }
  void Finish(const Status& status) override {
    ASSERT_FALSE(finished);
    finished = true;
    final_status = status;
  }
  void Complete(bool ok) {
    writing = false;
    source_.OnWritten(ok);
  }

  bool eager = false;
  bool writing = false;
  bool finished = false;
  Status final_status;
  std::deque<v1::GenerateResponse> written;

 private:
  StreamSource& source_;
};

TokensEvent Tokens(int32_t choice, const std::string& text) { return {choice, {7}, {}, text}; }

FinishEvent Finished(int32_t choice, FinishReason reason = FinishReason::kStop) {
  FinishEvent event;
  event.choice = choice;
  event.reason = reason;
  return event;
}

struct Fixture {
  explicit Fixture(int32_t num_choices = 1, size_t bytes = 4096)
      : stream({.request_id = "r",
                .num_choices = num_choices,
                .max_buffer_bytes = bytes,
                .cancel = [this] { ++cancels; }}),
        channel(stream) {}
  int cancels = 0;
  TokenStream stream;
  ManualChannel channel;
};

TEST(TokenStreamTest, EventsGoOutInOrderOneWriteAtATime) {
  Fixture f;
  f.channel.eager = true;
  f.stream.Start(f.channel);
  EXPECT_TRUE(f.stream.OnEvent(PromptEvent()));
  EXPECT_TRUE(f.stream.OnEvent(Tokens(0, "a")));
  EXPECT_TRUE(f.stream.OnEvent(Finished(0)));
  ASSERT_EQ(f.channel.written.size(), 3u);
  EXPECT_TRUE(f.channel.written[0].has_prompt());
  EXPECT_EQ(f.channel.written[1].delta().text(), "a");
  EXPECT_TRUE(f.channel.written[2].has_finish());
  EXPECT_TRUE(f.channel.finished);
  EXPECT_TRUE(f.channel.final_status.ok());
  EXPECT_EQ(f.cancels, 0);
}

TEST(TokenStreamTest, WhatASlowClientMissedComesInOneMessage) {
  Fixture f;
  f.stream.Start(f.channel);
  EXPECT_TRUE(f.stream.OnEvent(PromptEvent()));
  for (const char* text : {"a", "b", "c"}) EXPECT_TRUE(f.stream.OnEvent(Tokens(0, text)));
  EXPECT_TRUE(f.stream.OnEvent(Finished(0)));
  f.channel.Complete(true);
  ASSERT_EQ(f.channel.written.size(), 2u);
  EXPECT_EQ(f.channel.written[1].delta().text(), "abc");
  EXPECT_EQ(f.channel.written[1].delta().token_ids_size(), 3);
  f.channel.Complete(true);
  f.channel.Complete(true);
  EXPECT_TRUE(f.channel.finished);
}

TEST(TokenStreamTest, EventsBeforeTheTransportIsThereAreKept) {
  Fixture f;
  EXPECT_TRUE(f.stream.OnEvent(PromptEvent()));
  EXPECT_TRUE(f.stream.OnEvent(Finished(0)));
  f.channel.eager = true;
  f.stream.Start(f.channel);
  EXPECT_EQ(f.channel.written.size(), 2u);
  EXPECT_TRUE(f.channel.finished);
}

TEST(TokenStreamTest, OverItsBudgetTheStreamIsAbortedAndTheRequestCancelledOnce) {
  Fixture f(1, 1000);
  f.stream.Start(f.channel);
  EXPECT_TRUE(f.stream.OnEvent(PromptEvent()));
  int accepted = 0;
  while (accepted < 100 && f.stream.OnEvent(Tokens(0, std::string(100, 'x')))) ++accepted;
  EXPECT_GT(accepted, 2);
  EXPECT_LT(accepted, 10);
  EXPECT_FALSE(f.stream.OnEvent(Tokens(0, "x")));
  EXPECT_EQ(f.cancels, 1);
  EXPECT_FALSE(f.channel.finished);  // a write is still under way
  f.channel.Complete(true);
  EXPECT_TRUE(f.channel.finished);
  EXPECT_EQ(f.channel.final_status.code(), absl::StatusCode::kAborted);
  EXPECT_EQ(f.channel.written.size(), 1u);
}

TEST(TokenStreamTest, BudgetIsGivenBackAsTheClientReads) {
  Fixture f(1, 1000);
  f.channel.eager = true;
  f.stream.Start(f.channel);
  for (int i = 0; i < 1000; ++i) ASSERT_TRUE(f.stream.OnEvent(Tokens(0, std::string(100, 'x'))));
}

TEST(TokenStreamTest, AClientThatLeavesCancelsTheRequest) {
  Fixture f;
  f.stream.Start(f.channel);
  f.stream.OnCancelled();
  EXPECT_EQ(f.cancels, 1);
  EXPECT_TRUE(f.channel.finished);
  EXPECT_EQ(f.channel.final_status.code(), absl::StatusCode::kCancelled);
  EXPECT_FALSE(f.stream.OnEvent(Tokens(0, "late")));
  EXPECT_EQ(f.cancels, 1);
}

TEST(TokenStreamTest, AFailedWriteCancelsTheRequest) {
  Fixture f;
  f.stream.Start(f.channel);
  f.stream.OnEvent(PromptEvent());
  f.channel.Complete(false);
  EXPECT_EQ(f.cancels, 1);
  EXPECT_TRUE(f.channel.finished);
}

TEST(TokenStreamTest, TheCallEndsWithItsLastChoice) {
  Fixture f(2);
  f.channel.eager = true;
  f.stream.Start(f.channel);
  f.stream.OnEvent(Finished(1));
  EXPECT_FALSE(f.channel.finished);
  f.stream.OnEvent(Finished(0));
  EXPECT_TRUE(f.channel.finished);
}

TEST(TokenStreamTest, TheStatusSaysWhyAChoiceFailed) {
  Fixture f;
  f.channel.eager = true;
  f.stream.Start(f.channel);
  FinishEvent failed = Finished(0, FinishReason::kError);
  failed.status = DeadlineExceeded("deadline: passed in the queue");
  f.stream.OnEvent(failed);
  EXPECT_EQ(f.channel.written.back().finish().reason(), v1::Finish::ERROR);
  EXPECT_EQ(f.channel.final_status.code(), absl::StatusCode::kDeadlineExceeded);
}

TEST(MessageStreamTest, ReplaceKeepsOnlyTheNewest) {
  MessageStream<v1::WatchAdaptersResponse> stream(1 << 20);
  class Channel final : public MessageChannel {
   public:
    void StartWrite(const google::protobuf::MessageLite& message) override {
      sizes.push_back(message.ByteSizeLong());
    }
    void Finish(const Status&) override { finished = true; }
    std::vector<size_t> sizes;
    bool finished = false;
  } channel;
  stream.Start(channel);
  const auto with = [](int count) {
    v1::WatchAdaptersResponse response;
    for (int i = 0; i < count; ++i) response.add_adapters();
    return response;
  };
  EXPECT_TRUE(stream.Send(with(1)));
  EXPECT_TRUE(stream.Replace(with(2)));
  EXPECT_TRUE(stream.Replace(with(3)));
  stream.OnWritten(true);
  EXPECT_EQ(channel.sizes, (std::vector<size_t>{2, 6}));
  stream.OnWritten(true);
  stream.Close(absl::OkStatus());
  EXPECT_TRUE(channel.finished);
}

TEST(MessageStreamTest, WhatReplacesCountsAgainstTheBudgetAsItIs) {
  class Channel final : public MessageChannel {
   public:
    void StartWrite(const google::protobuf::MessageLite&) override { ++num_written; }
    void Finish(const Status&) override {}
    int num_written = 0;
  } channel;
  const auto with = [](size_t bytes) {
    v1::WatchAdaptersResponse response;
    response.add_adapters()->mutable_report()->set_name(std::string(bytes, 'x'));
    return response;
  };
  MessageStream<v1::WatchAdaptersResponse> stream(1000);
  stream.Start(channel);
  ASSERT_TRUE(stream.Send(with(10)));  // under way, no longer pending
  EXPECT_FALSE(stream.Replace(with(1000))) << "alone it is over the budget";
  EXPECT_TRUE(stream.Replace(with(800)));
  EXPECT_FALSE(stream.Send(with(400))) << "beside what replaced nothing";
  EXPECT_TRUE(stream.Replace(with(100)));
  EXPECT_TRUE(stream.Send(with(400))) << "what was replaced counts no more";
  for (int i = 0; i < 3; ++i) stream.OnWritten(true);
  EXPECT_EQ(channel.num_written, 3);
  EXPECT_TRUE(stream.Send(with(900))) << "what was written counts no more";
}

}  // namespace
}  // namespace polyad
