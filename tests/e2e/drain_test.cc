// SIGTERM while clients read slowly: what a server has begun to say is said to the end, over gRPC,
// where flow control keeps most of it in the server, and over HTTP. covers: server/command_serve.cc

#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <thread>

#include "polyad/v1/inference.grpc.pb.h"
#include "tests/e2e/server_process.h"
#include "tests/server/notify_socket.h"
#include "tests/server/raw_client.h"

namespace polyad {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr int kChoices = 16;
constexpr int kTokens = 100;
// Of each choice's tokens: with 20 alternatives to each token, more than a connection's window.
constexpr int kLogprobs = 20;
constexpr milliseconds kPause{1200};  // longer than the server gives to the last words of others

std::vector<std::string> Flags(const std::string& drain_ms) {
  return {"--model", std::string(POLYAD_SOURCE_DIR) + "/tests/golden/models/llama", "--kv-mib=16",
          "--stream-buffer-kib=16384", "--drain-ms=" + drain_ms};
}

v1::GenerateRequest LongRequest() {
  v1::GenerateRequest request;
  for (int32_t id = 5; id < 13; ++id) request.mutable_token_ids()->add_ids(id);
  request.mutable_sampling()->set_n(kChoices);
  request.mutable_sampling()->set_seed(7);
  request.mutable_stopping()->set_max_tokens(kTokens);
  request.mutable_stopping()->set_ignore_eos(true);
  request.mutable_output()->set_logprobs(kLogprobs);
  return request;
}

struct Reading {
  explicit Reading(const ServerProcess& server)
      : stub(v1::InferenceService::NewStub(
            grpc::CreateChannel(server.Address("grpc"), grpc::InsecureChannelCredentials()))),
        reader(stub->Generate(&context, LongRequest())) {
    EXPECT_TRUE(reader->Read(&response));
  }
  // The rest, with a pause first. -> tokens of all choices
  int Finish(milliseconds pause) {
    std::this_thread::sleep_for(pause);
    int tokens = 0;
    int ends = 0;
    while (reader->Read(&response)) {
      tokens += response.delta().token_ids_size();
      ends += response.has_finish() ? 1 : 0;
    }
    status = reader->Finish();
    EXPECT_TRUE(!status.ok() || ends == kChoices);
    return tokens;
  }

  grpc::ClientContext context;
  std::unique_ptr<v1::InferenceService::Stub> stub;
  std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>> reader;
  v1::GenerateResponse response;
  grpc::Status status;
};

TEST(DrainTest, ASlowReaderHearsTheEnd) {
  ServerProcess server(Flags("60000"));
  Reading one(server);
  Reading other(server);
  server.Signal(SIGTERM);
  EXPECT_EQ(one.Finish(kPause), kChoices * kTokens);
  EXPECT_TRUE(one.status.ok()) << one.status.error_message();
  EXPECT_EQ(other.Finish(kPause), kChoices * kTokens);
  EXPECT_TRUE(other.status.ok()) << other.status.error_message();
  EXPECT_EQ(server.Wait(), 0);
}

TEST(DrainTest, OneThatNeverReadsHoldsTheServerNoLongerThanTheDrain) {
  ServerProcess server(Flags("2000"));
  Reading stalled(server);
  const auto start = steady_clock::now();
  server.Signal(SIGTERM);
  EXPECT_EQ(server.Wait(), 0);
  EXPECT_GE(steady_clock::now() - start, milliseconds(1900)) << "it was waited for";
  EXPECT_LE(steady_clock::now() - start, milliseconds(10000));
}

TEST(DrainTest, ASlowReaderOverHttpHearsTheEnd) {
  ServerProcess server(Flags("60000"));
  RawClient client(server.Address("http"), 4096);
  ASSERT_TRUE(client.Send(Post("/v1/completions",
                               R"({"prompt": [5, 6, 7, 8], "n": 16, "max_tokens": 100,)"
                               R"( "logprobs": 20, "stream": true, "ignore_eos": true})")));
  ASSERT_TRUE(client.ReadSome(60'000));
  server.Signal(SIGTERM);
  std::this_thread::sleep_for(kPause);
  EXPECT_NE(client.ReadUntil("data: [DONE]").find("data: [DONE]"), std::string::npos);
  EXPECT_EQ(server.Wait(), 0);
}

TEST(DrainTest, NewConnectionsAreRefusedOnceNothingRuns) {
  ServerProcess server(Flags("60000"));
  Reading stalled(server);
  server.Signal(SIGTERM);
  const std::string address = server.Address("http");
  bool refused = false;
  for (int i = 0; i < 3000 && !refused; ++i) {
    RawClient client(address);
    refused = !client.connected();
    std::this_thread::sleep_for(milliseconds(10));
  }
  EXPECT_TRUE(refused);
  EXPECT_EQ(stalled.Finish(milliseconds(0)), kChoices * kTokens);
  EXPECT_EQ(server.Wait(), 0);
}

TEST(DrainTest, AServiceManagerIsToldFromReadyToStopping) {
  const NotifySocket socket;
  ServerProcess server(Flags("2000"),
                       {{"NOTIFY_SOCKET", socket.path()}, {"WATCHDOG_USEC", "1000000"}});
  std::vector<std::string> told;
  const auto is_fed = [&told] { return std::count(told.begin(), told.end(), "WATCHDOG=1") >= 3; };
  for (int i = 0; i < 6000 && !is_fed(); ++i) {
    std::this_thread::sleep_for(milliseconds(10));
    for (std::string& message : socket.Take()) told.push_back(std::move(message));
  }
  ASSERT_TRUE(is_fed());
  EXPECT_EQ(told.front(), "READY=1");
  server.Signal(SIGTERM);
  EXPECT_EQ(server.Wait(), 0);
  for (std::string& message : socket.Take()) told.push_back(std::move(message));
  EXPECT_EQ(told.back(), "STOPPING=1");
}

}  // namespace
}  // namespace polyad
