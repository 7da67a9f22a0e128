#include "server/http/http_parser.h"

#include <gtest/gtest.h>

namespace polyad {
namespace {

using Result = HttpParser::Result;

struct Parsed {
  Result result = Result::kNeedMore;
  int error = 0;
  HttpRequest request;
};

Parsed ParseBytes(std::string_view bytes, size_t piece = 0, const HttpLimits& limits = {}) {
  HttpParser parser(limits);
  Parsed out;
  if (piece == 0) piece = bytes.size() + 1;
  do {
    parser.Append(bytes.substr(0, piece));
    bytes.remove_prefix(std::min(piece, bytes.size()));
    out.result = parser.Parse();
  } while (!bytes.empty() && out.result == Result::kNeedMore);
  out.error = out.result == Result::kError ? parser.error_status() : 0;
  out.request = parser.request();
  return out;
}

constexpr char kChunked[] =
    "POST /a?b=c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    "5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\nTrailer: y\r\n\r\n";

TEST(HttpParserTest, ReadsRequestsHoweverTheyAreCut) {
  for (size_t piece : {0, 1, 2, 3, 7}) {
    const Parsed sized =
        ParseBytes("POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", piece);
    ASSERT_EQ(sized.result, Result::kDone) << piece;
    EXPECT_EQ(sized.request.method, "POST");
    EXPECT_EQ(sized.request.path, "/v1/x");
    EXPECT_EQ(sized.request.body, "hello");
    EXPECT_TRUE(sized.request.keep_alive);
    const Parsed chunked = ParseBytes(kChunked, piece);
    ASSERT_EQ(chunked.result, Result::kDone) << piece;
    EXPECT_EQ(chunked.request.body, "hello world");
    EXPECT_EQ(chunked.request.query, "b=c");
  }
}

TEST(HttpParserTest, FieldNamesAreFoldedAndValuesTrimmed) {
  const Parsed parsed =
      ParseBytes("GET / HTTP/1.1\r\nHOST: x\r\nAuthorization: \t Bearer k \r\n\r\n");
  ASSERT_EQ(parsed.result, Result::kDone);
  EXPECT_EQ(parsed.request.Field("authorization"), "Bearer k");
  EXPECT_EQ(parsed.request.Field("absent"), "");
}

TEST(HttpParserTest, KeepAliveFollowsVersionAndField) {
  const auto keeps = [](const std::string& head) {
    return ParseBytes(head + "\r\n\r\n").request.keep_alive;
  };
  EXPECT_TRUE(keeps("GET / HTTP/1.1\r\nHost: x"));
  EXPECT_FALSE(keeps("GET / HTTP/1.1\r\nHost: x\r\nConnection: Close"));
  EXPECT_FALSE(keeps("GET / HTTP/1.0"));
  EXPECT_TRUE(keeps("GET / HTTP/1.0\r\nConnection: keep-alive"));
}

TEST(HttpParserTest, PipelinedRequestsComeOneAfterTheOther) {
  HttpParser parser(HttpLimits{});
  parser.Append("GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n");
  ASSERT_EQ(parser.Parse(), Result::kDone);
  EXPECT_EQ(parser.request().path, "/a");
  parser.Next();
  ASSERT_EQ(parser.Parse(), Result::kDone);
  EXPECT_EQ(parser.request().path, "/b");
  parser.Next();
  EXPECT_TRUE(parser.idle());
}

struct Refusal {
  const char* why;
  std::string bytes;
  int status;
};

TEST(HttpParserTest, MalformedAndAmbiguousRequestsAreRefused) {
  const std::string host = "Host: x\r\n";
  const auto with = [&](const std::string& fields) {
    return "POST / HTTP/1.1\r\n" + host + fields + "\r\n";
  };
  const std::string chunked = with("Transfer-Encoding: chunked\r\n");
  const std::vector<Refusal> cases = {
      {"not HTTP", "\x16\x03\x01\x02", 400},
      {"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
      {"no version", "GET /\r\n\r\n", 400},
      {"one space", "GET/ HTTP/1.1\r\n\r\n", 400},
      {"relative target", "GET a HTTP/1.1\r\n" + host + "\r\n", 400},
      {"absolute form", "GET http://x/ HTTP/1.1\r\n" + host + "\r\n", 400},
      {"control in target", "GET /\x01 HTTP/1.1\r\n" + host + "\r\n", 400},
      {"long method", std::string(17, 'A') + " / HTTP/1.1\r\n" + host + "\r\n", 400},
      {"no host", "GET / HTTP/1.1\r\n\r\n", 400},
      {"folded field", with("A: b\r\n c\r\n"), 400},
      {"space before colon", with("A : b\r\n"), 400},
      {"no colon", with("A\r\n"), 400},
      {"NUL in value", with(std::string("A: b\0c\r\n", 8)), 400},
      {"bare line feed", "GET / HTTP/1.1\r\n" + host + "A: b\nC: d\r\n\r\n", 400},
      {"two lengths", with("Content-Length: 1\r\nContent-Length: 1\r\n"), 400},
      {"length and chunked", with("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"), 400},
      {"negative length", with("Content-Length: -1\r\n"), 400},
      {"signed length", with("Content-Length: +1\r\n"), 400},
      {"list of lengths", with("Content-Length: 1, 1\r\n"), 400},
      {"overflowing length", with("Content-Length: 99999999999999999999\r\n"), 400},
      {"huge length", with("Content-Length: 999999999999999999\r\n"), 413},
      {"other encoding", with("Transfer-Encoding: gzip, chunked\r\n"), 501},
      {"chunked in 1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
      {"chunk without size", chunked + "\r\n", 400},
      {"chunk of nonsense", chunked + "xyz\r\n", 400},
      {"negative chunk", chunked + "-1\r\n", 400},
      {"overflowing chunk", chunked + "fffffffffffffffff\r\n", 413},
      {"huge chunk", chunked + "ffffffff\r\n", 413},
      {"long chunk extension", chunked + "1;" + std::string(300, 'a'), 400},
      {"chunk longer than it said", chunked + "1\r\nab\r\n", 400},
      {"long trailers", chunked + "0\r\n" + std::string(5000, 'a'), 431},
      {"long target", "GET /" + std::string(9000, 'a') + " HTTP/1.1\r\n" + host + "\r\n", 414},
      {"long head", "GET / HTTP/1.1\r\nA: " + std::string(17'000, 'a'), 431},
  };
  for (const Refusal& one : cases) {
    for (size_t piece : {0, 1}) {
      const Parsed parsed = ParseBytes(one.bytes, piece);
      EXPECT_EQ(parsed.result, Result::kError) << one.why;
      EXPECT_EQ(parsed.error, one.status) << one.why;
    }
  }
}

TEST(HttpParserTest, FieldsAndBodyAreCountedBeforeTheyAreKept) {
  HttpLimits limits;
  limits.max_fields = 3;
  limits.max_body_bytes = 10;
  const std::string two = "POST / HTTP/1.1\r\nHost: x\r\nA: 1\r\n";
  EXPECT_EQ(ParseBytes(two + "B: 2\r\n\r\n", 0, limits).result, Result::kDone);
  EXPECT_EQ(ParseBytes(two + "B: 2\r\nC: 3\r\n\r\n", 0, limits).error, 431);
  EXPECT_EQ(ParseBytes(two + "Content-Length: 10\r\n\r\n0123456789", 0, limits).result,
            Result::kDone);
  EXPECT_EQ(ParseBytes(two + "Content-Length: 11\r\n\r\n", 0, limits).error, 413);
  EXPECT_EQ(
      ParseBytes(two + "Transfer-Encoding: chunked\r\n\r\n6\r\n012345\r\n5\r\n", 0, limits).error,
      413);
}

TEST(HttpParserTest, ContinueIsAskedForOnce) {
  HttpParser parser(HttpLimits{});
  parser.Append("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(parser.Parse(), Result::kNeedMore);
  EXPECT_TRUE(parser.TakeContinue());
  EXPECT_FALSE(parser.TakeContinue());
}

}  // namespace
}  // namespace polyad
