#include "server/http/http_server.h"

#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <mutex>
#include <thread>
#include <vector>

#include "tests/server/raw_client.h"
#include "tests/server/serving_fixture.h"

namespace polyad {
namespace {

HttpServer::Options Options() {
  HttpServer::Options options;
  options.listen = "127.0.0.1:0";
  return options;
}

std::unique_ptr<HttpServer> StartEcho(Clock& clock, HttpServer::Options options = Options()) {
  return HttpServer::Start(options, clock,
                           [](const auto& exchange) {
                             exchange->Respond(200, "text/plain",
                                               exchange->request().method + " " +
                                                   exchange->request().path + " " +
                                                   exchange->request().body);
                           })
      .value();
}

TEST(HttpServerTest, AnswersOneConnectionsRequestsInOrder) {
  RealClock clock;
  const auto server = StartEcho(clock);
  RawClient client(server->address());
  client.Send(
      "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi"
      "GET /b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  const std::string response = client.ReadAll();
  const size_t first = response.find("POST /a hi");
  const size_t second = response.find("GET /b ");
  ASSERT_NE(first, std::string::npos) << response;
  ASSERT_NE(second, std::string::npos) << response;
  EXPECT_LT(first, second);
}

TEST(HttpServerTest, AMalformedRequestIsAnsweredAndTheConnectionClosed) {
  RealClock clock;
  const auto server = StartEcho(clock);
  const std::string response = Ask(server->address(), "GET / HTTP/1.1\r\nA : b\r\n\r\n");
  EXPECT_EQ(StatusOf(response), 400);
  EXPECT_NE(response.find("invalid_request_error"), std::string::npos);
  EXPECT_TRUE(Eventually([&] { return server->num_connections() == 0; }));
}

TEST(HttpServerTest, AnOversizedBodyIsRefusedBeforeItIsRead) {
  RealClock clock;
  const auto server = StartEcho(clock);
  RawClient client(server->address());
  client.Send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4194305\r\n\r\n");
  EXPECT_EQ(StatusOf(client.ReadUntil("}}")), 413);
}

TEST(HttpServerTest, ExpectContinueIsAnswered) {
  RealClock clock;
  const auto server = StartEcho(clock);
  RawClient client(server->address());
  client.Send(
      "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\nExpect: "
      "100-continue\r\n\r\n");
  EXPECT_NE(client.ReadUntil("100 Continue").find("100 Continue"), std::string::npos);
  client.Send("hi");
  EXPECT_NE(client.ReadAll().find("POST / hi"), std::string::npos);
}

// A "100 Continue" finds the socket full: the body comes all the same, and it goes out later.
TEST(HttpConnectionTest, WhatWaitsToBeSentKeepsNoRequestFromArriving) {
  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
  const int epoll = ::epoll_create1(0);
  epoll_event event{};
  event.events = EPOLLIN | EPOLLRDHUP;
  ASSERT_EQ(::epoll_ctl(epoll, EPOLL_CTL_ADD, ends[0], &event), 0);
  const auto connection =
      std::make_shared<HttpConnection>(ends[0], epoll, HttpLimits{}, 0, nullptr);
  const std::string junk(4096, '.');
  while (::send(ends[0], junk.data(), junk.size(), MSG_NOSIGNAL) > 0) {
  }
  EXPECT_TRUE(connection->Send("100 Continue", 1000));
  EXPECT_FALSE(connection->drained());
  ASSERT_EQ(::send(ends[1], "hi", 2, MSG_NOSIGNAL), 2);
  ASSERT_EQ(::epoll_wait(epoll, &event, 1, 0), 1);
  EXPECT_NE(event.events & EPOLLIN, 0u);
  char bytes[8192];
  size_t num_read = 0;
  EXPECT_TRUE(connection->Receive(bytes, sizeof(bytes), num_read));
  EXPECT_EQ(num_read, 2u);
  std::string read;
  const auto read_all = [&] {
    for (ssize_t n = 0; (n = ::recv(ends[1], bytes, sizeof(bytes), 0)) > 0;) {
      read.append(bytes, static_cast<size_t>(n));
    }
  };
  read_all();
  ASSERT_EQ(::epoll_wait(epoll, &event, 1, 0), 1);
  EXPECT_NE(event.events & EPOLLOUT, 0u);
  EXPECT_TRUE(connection->Flush(0));
  EXPECT_TRUE(connection->drained());
  read_all();
  EXPECT_TRUE(read.ends_with(".100 Continue"));
  EXPECT_EQ(::epoll_wait(epoll, &event, 1, 0), 0) << "nothing to wake up for";
  ::close(ends[1]);
  ::close(epoll);
}

TEST(HttpServerTest, ARequestThatDoesNotArriveInTimeIsGivenUp) {
  RealClock clock;
  HttpServer::Options options = Options();
  options.limits.request_timeout_ms = 300;
  const auto server = StartEcho(clock, options);
  RawClient slow(server->address());
  slow.Send("GET / HTTP/1.1\r\n");
  EXPECT_EQ(StatusOf(slow.ReadAll()), 408);
  EXPECT_TRUE(Eventually([&] { return server->num_connections() == 0; }));
}

TEST(HttpServerTest, SilentConnectionsDoNotKeepOthersFromBeingServed) {
  RealClock clock;
  const auto server = StartEcho(clock);
  std::vector<std::unique_ptr<RawClient>> silent;
  for (int i = 0; i < 300; ++i) {
    silent.push_back(std::make_unique<RawClient>(server->address()));
    silent.back()->Send("POST / HTTP/1.1\r\nHost: x\r\nContent-Le");
  }
  EXPECT_EQ(StatusOf(Ask(server->address(), Get("/health"))), 200);
}

TEST(HttpServerTest, ConnectionsOverTheLimitAreClosed) {
  RealClock clock;
  HttpServer::Options options = Options();
  options.limits.max_connections = 2;
  const auto server = StartEcho(clock, options);
  RawClient first(server->address());
  RawClient second(server->address());
  ASSERT_TRUE(Eventually([&] { return server->num_connections() == 2; }));
  RawClient third(server->address());
  EXPECT_EQ(third.ReadAll(), "");
  first.Close();
  ASSERT_TRUE(Eventually([&] { return server->num_connections() == 1; }));
  EXPECT_EQ(StatusOf(Ask(server->address(), Get("/"))), 200);
}

TEST(HttpServerTest, AStreamGoesOutInChunksFromAnotherThread) {
  RealClock clock;
  std::vector<std::thread> producers;
  {
    const auto server =
        HttpServer::Start(Options(), clock, [&](const std::shared_ptr<HttpExchange>& exchange) {
          producers.emplace_back([exchange] {
            exchange->BeginStream("text/event-stream");
            for (int i = 0; i < 3; ++i) exchange->Write("data: " + std::to_string(i) + "\n\n");
            exchange->EndStream();
          });
        }).value();
    const std::string response = Ask(server->address(), Get("/"));
    EXPECT_NE(response.find("Transfer-Encoding: chunked"), std::string::npos);
    EXPECT_NE(
        response.find("9\r\ndata: 0\n\n\r\n9\r\ndata: 1\n\n\r\n9\r\ndata: 2\n\n\r\n0\r\n\r\n"),
        std::string::npos);
    RawClient old(server->address());
    old.Send("GET / HTTP/1.0\r\n\r\n");
    EXPECT_NE(old.ReadAll().find("\r\n\r\ndata: 0\n\ndata: 1\n\n"), std::string::npos);
  }
  for (std::thread& producer : producers) producer.join();
}

TEST(HttpServerTest, AClientThatLeavesIsNoticedAndWritesFail) {
  RealClock clock;
  std::atomic<bool> closed{false};
  std::shared_ptr<HttpExchange> held;
  std::mutex mutex;
  const auto server =
      HttpServer::Start(Options(), clock, [&](const std::shared_ptr<HttpExchange>& exchange) {
        exchange->OnClosed([&] { closed.store(true); });
        exchange->BeginStream("text/event-stream");
        exchange->Write("data: 0\n\n");
        std::lock_guard<std::mutex> lock(mutex);
        held = exchange;
      }).value();
  RawClient client(server->address());
  client.Send(Get("/"));
  client.ReadUntil("data: 0");
  client.Close();
  EXPECT_TRUE(Eventually([&] { return closed.load(); }));
  std::lock_guard<std::mutex> lock(mutex);
  EXPECT_FALSE(held->Write("data: 1\n\n"));
}

TEST(HttpServerTest, AClientThatDoesNotReadHoldsABoundedBuffer) {
  RealClock clock;
  HttpServer::Options options = Options();
  options.limits.max_stream_bytes = 64 << 10;
  std::atomic<int64_t> accepted{0};
  std::atomic<bool> refused{false};
  const auto server =
      HttpServer::Start(options, clock, [&](const std::shared_ptr<HttpExchange>& exchange) {
        exchange->BeginStream("text/event-stream");
        const std::string event(1000, 'x');
        while (accepted.load() < 100'000 && exchange->Write(event)) ++accepted;
        refused.store(true);
        exchange->AbortStream();
      }).value();
  RawClient client(server->address(), 4096);
  client.Send(Get("/"));
  ASSERT_TRUE(Eventually([&] { return refused.load(); }));
  EXPECT_LT(accepted.load(), 10'000);  // our 64 KiB and what the kernel's socket buffers take
}

TEST(HttpServerTest, AHandlerThatForgetsTheRequestIsA500) {
  RealClock clock;
  const auto server = HttpServer::Start(Options(), clock, [](const auto&) {}).value();
  EXPECT_EQ(StatusOf(Ask(server->address(), Get("/"))), 500);
}

TEST(HttpServerTest, AddressesAreChecked) {
  for (const char* bad :
       {"", "127.0.0.1", ":80", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536", "host.example:1"}) {
    HttpServer::Options options = Options();
    options.listen = bad;
    RealClock clock;
    EXPECT_FALSE(HttpServer::Start(options, clock, [](const auto&) {}).ok()) << bad;
  }
  EXPECT_EQ(ParseListenAddress("[::1]:80").value(), std::make_pair(std::string("::1"), 80));
}

TEST(HttpServerTest, FinishesWhatItBeganAndTakesNoMore) {
  RealClock clock;
  const auto server = StartEcho(clock);
  EXPECT_NE(Ask(server->address(), Get("/")).find("GET /"), std::string::npos);
  EXPECT_TRUE(server->Finish(10'000)) << "nothing is under way";
  RawClient late(server->address());
  EXPECT_FALSE(late.connected());
}

TEST(HttpServerTest, AnAnswerUnderWayIsWaitedForAndOneThatNobodyWantsIsNot) {
  RealClock clock;
  std::mutex mutex;
  std::vector<std::shared_ptr<HttpExchange>> held;
  const auto count = [&] {
    std::lock_guard<std::mutex> lock(mutex);
    return held.size();
  };
  const auto server = HttpServer::Start(Options(), clock, [&](const auto& exchange) {
                        std::lock_guard<std::mutex> lock(mutex);
                        held.push_back(exchange);
                      }).value();
  RawClient client(server->address());
  RawClient gone(server->address());
  for (RawClient* one : {&client, &gone}) one->Send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  ASSERT_TRUE(Eventually([&] { return count() == 2; }));
  gone.Close();
  EXPECT_TRUE(Eventually([&] { return server->num_connections() == 1; }));
  EXPECT_FALSE(server->Finish(50));
  std::thread finishing([&] { EXPECT_TRUE(server->Finish(60'000)); });
  for (const auto& exchange : held) exchange->Respond(200, "text/plain", "the end");
  finishing.join();
  EXPECT_NE(client.ReadUntil("the end").find("the end"), std::string::npos);
}

}  // namespace
}  // namespace polyad
