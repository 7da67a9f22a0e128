#include "server/http/http_answer.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace polyad {
namespace {

struct Answer {
  bool ok = true;
  bool done = false;
  bool keeps = false;
  int status = 0;
  std::string body;
};

// Fed in pieces of `piece` bytes.
Answer ReadAnswer(const std::string& bytes, size_t piece) {
  HttpAnswerReader reader;
  Answer out;
  for (size_t at = 0; at < bytes.size() && out.ok; at += piece) {
    out.ok = reader.Append(std::string_view(bytes).substr(at, piece),
                           [&](std::string_view body) { out.body += body; });
  }
  out.done = reader.done();
  out.keeps = reader.keeps_connection();
  out.status = reader.status();
  return out;
}

TEST(HttpAnswerTest, ReadsChunksHoweverTheyAreCut) {
  const std::string bytes =
      "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
      "5\r\nhello\r\nA;x=1\r\n 0123456\r\n\r\n0\r\nTrailer: x\r\n\r\n";
  for (size_t piece = 1; piece <= bytes.size(); ++piece) {
    const Answer answer = ReadAnswer(bytes, piece);
    ASSERT_TRUE(answer.ok && answer.done && answer.keeps) << piece;
    EXPECT_EQ(answer.status, 200);
    EXPECT_EQ(answer.body, "hello 0123456\r\n");
  }
}

TEST(HttpAnswerTest, ReadsAStatedLengthAndNoMore) {
  const std::string head =
      "HTTP/1.1 429 Too Many\r\nContent-Length: 3\r\nConnection: close\r\n\r\n";
  EXPECT_FALSE(ReadAnswer(head + "ab", 7).done);
  const Answer answer = ReadAnswer(head + "abc", 7);
  EXPECT_TRUE(answer.ok && answer.done);
  EXPECT_FALSE(answer.keeps);
  EXPECT_EQ(answer.status, 429);
  EXPECT_EQ(answer.body, "abc");
  EXPECT_FALSE(ReadAnswer(head + "abcd", 1).ok);
  EXPECT_TRUE(ReadAnswer("HTTP/1.1 204 No\r\nContent-Length: 0\r\n\r\n", 5).done);
}

TEST(HttpAnswerTest, WithoutALengthTheConnectionsEndIsTheEnd) {
  HttpAnswerReader reader;
  const auto ignore = [](std::string_view) {};
  EXPECT_TRUE(reader.Append("HTTP/1.0 200 OK\r\n\r\nabc", ignore));
  EXPECT_FALSE(reader.done());
  EXPECT_FALSE(reader.keeps_connection());
  EXPECT_TRUE(reader.End());
  HttpAnswerReader cut;
  EXPECT_TRUE(cut.Append("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe", ignore));
  EXPECT_FALSE(cut.End());
}

TEST(HttpAnswerTest, WhatIsNoAnswerIsRefused) {
  const std::string ok = "HTTP/1.1 200 OK\r\n";
  for (const std::string& bytes :
       {std::string("SSH-2.0-x\r\n"), std::string("HTTP/1.1 2x0 OK\r\n"), ok + "no colon\r\n",
        ok + "Content-Length: -1\r\n", ok + "Content-Length: 99999999999999999999\r\n",
        ok + "Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
        ok + "Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n",
        ok + "Long: " + std::string(70'000, 'x')}) {
    EXPECT_FALSE(ReadAnswer(bytes, 9).ok) << bytes.substr(0, 60);
  }
}

TEST(EventReaderTest, FindsEventsHoweverTheyAreCut) {
  const std::string body = "data: {\"a\":1}\n\ndata:[DONE]\r\n\r\n: a comment\nid: 7\n\n";
  for (size_t piece = 1; piece <= body.size(); ++piece) {
    EventReader reader;
    std::vector<std::string> events;
    for (size_t at = 0; at < body.size(); at += piece) {
      EXPECT_TRUE(reader.Append(std::string_view(body).substr(at, piece),
                                [&](std::string_view data) { events.emplace_back(data); }));
    }
    EXPECT_EQ(events, (std::vector<std::string>{"{\"a\":1}", "[DONE]"})) << piece;
  }
  EventReader reader;
  EXPECT_FALSE(reader.Append(std::string((1 << 20) + 1, 'x'), [](std::string_view) {}));
}

}  // namespace
}  // namespace polyad
