// The generator against a socket that the test holds: what it does while a server says nothing.

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thread>

#include "server/bench_load.h"

namespace polyad {
namespace {

const std::string kEvents =
    "data: {\"choices\":[{\"text\":\"a\"}]}\n\ndata: {\"choices\":[{\"text\":\"b\"}]}\n\n"
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\n"
    "data: [DONE]\n\n";

std::string Stated(const std::string& status, const std::string& body) {
  return "HTTP/1.1 " + status + "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
         body;
}

class Listener {
 public:
  Listener() {
    fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ::bind(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address));
    ::listen(fd_, 64);
    socklen_t size = sizeof(address);
    ::getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size);
    target_ = "127.0.0.1:" + std::to_string(ntohs(address.sin_port));
  }
  ~Listener() { ::close(fd_); }
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  const std::string& target() const { return target_; }
  int Accept() const { return ::accept(fd_, nullptr, nullptr); }
  // Waits for something to read from `fd` or for another connection (-1).
  int FirstOf(int fd) const {
    pollfd files[] = {{fd, POLLIN, 0}, {fd_, POLLIN, 0}};
    ::poll(files, 2, -1);
    return files[0].revents != 0 ? fd : -1;
  }
  // Of one request, whose body ends with the generator's last member.
  static std::string Read(int fd) {
    std::string text;
    char bytes[4096];
    while (text.find("\"include_usage\":true}}") == std::string::npos) {
      const ssize_t n = ::recv(fd, bytes, sizeof(bytes), 0);
      if (n <= 0) break;
      text.append(bytes, static_cast<size_t>(n));
    }
    return text;
  }
  static void Write(int fd, const std::string& text) {
    ::send(fd, text.data(), text.size(), MSG_NOSIGNAL);
  }

 private:
  int fd_ = -1;
  std::string target_;
};

struct Ended {
  BenchRequest request;
  BenchOutcome outcome;
};

std::vector<Ended> RunLoad(const BenchLoad& load) {
  std::vector<Ended> ended;
  const auto status = RunHttpLoad(load, [&](const BenchRequest& request, BenchOutcome outcome) {
    ended.push_back({request, std::move(outcome)});
  });
  EXPECT_TRUE(status.ok()) << status.status();
  return ended;
}

BenchLoad LoadOf(const Listener& listener, int count, int64_t gap_us) {
  BenchLoad load;
  load.target = listener.target();
  for (int i = 0; i < count; ++i) {
    BenchRequest& request = load.requests.emplace_back();
    request.at_us = i * gap_us;
    request.prompt_tokens = 3;
    request.output_tokens = 2;
  }
  return load;
}

// A generator that waited for answers would never send the second request.
TEST(BenchHttpTest, ASilentServerDoesNotHoldRequestsBackAndItsSilenceCounts) {
  constexpr int kCount = 5;
  constexpr int64_t kGapUs = 20'000;
  const Listener listener;
  std::thread server([&listener] {
    std::vector<int> clients;
    for (int i = 0; i < kCount; ++i) {
      clients.push_back(listener.Accept());
      EXPECT_NE(Listener::Read(clients.back()), "");
    }
    for (int fd : clients) Listener::Write(fd, Stated("200 OK", kEvents));
    for (int fd : clients) ::close(fd);
  });
  const std::vector<Ended> ended = RunLoad(LoadOf(listener, kCount, kGapUs));
  server.join();
  ASSERT_EQ(ended.size(), kCount);
  for (const auto& [request, outcome] : ended) {
    EXPECT_EQ(outcome.end, BenchOutcome::End::kCompleted) << outcome.error;
    EXPECT_EQ(outcome.output_tokens, 2);
    EXPECT_EQ(outcome.input_tokens, 3);
    // It waited for the last one to come at least.
    EXPECT_GE(outcome.ttft_us, (kCount - 1) * kGapUs - request.at_us);
  }
}

TEST(BenchHttpTest, LlamaServerIsAskedForAdaptersByTheirNumbers) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"second", "\"lora\":[{\"id\":1,\"scale\":1.0}],\"prompt\":["},
      {"", "\"lora\":[],\"prompt\":["},
  };
  for (const auto& [model, expected] : cases) {
    const Listener listener;
    std::string asked;
    std::thread server([&] {
      const int fd = listener.Accept();
      asked = Listener::Read(fd);
      Listener::Write(fd, Stated("200 OK", kEvents));
      ::close(fd);
    });
    BenchLoad load = LoadOf(listener, 1, 0);
    load.llama_loras = {"first", "second"};
    load.requests[0].model = model;
    RunLoad(load);
    server.join();
    EXPECT_NE(asked.find("\"model\":\"\",\"cache_prompt\":false," + expected), std::string::npos)
        << asked;
  }
}

// False where the second request did not wait for the first one's connection: a slow machine.
bool KeepsAndReplacesConnection() {
  const Listener listener;
  bool kept = false;
  std::thread server([&] {
    const int first = listener.Accept();
    Listener::Read(first);
    Listener::Write(first, Stated("200 OK", kEvents));
    kept = listener.FirstOf(first) == first;
    if (kept) {
      EXPECT_NE(Listener::Read(first), "");
    }
    ::close(first);  // without an answer, as a server that had timed it out
    const int second = listener.Accept();
    EXPECT_NE(Listener::Read(second), "");
    Listener::Write(second, Stated("200 OK", kEvents));
    ::close(second);
  });
  const std::vector<Ended> ended = RunLoad(LoadOf(listener, 2, 50'000));
  server.join();
  EXPECT_EQ(ended.size(), 2);
  for (const auto& [request, outcome] : ended) {
    EXPECT_EQ(outcome.end, BenchOutcome::End::kCompleted) << outcome.error;
  }
  return kept;
}

TEST(BenchHttpTest, ConnectionsAreKeptAndOneThatWasClosedMeanwhileIsReplaced) {
  bool kept = false;
  for (int i = 0; i < 100 && !kept; ++i) kept = KeepsAndReplacesConnection();
  EXPECT_TRUE(kept);
}

TEST(BenchHttpTest, EndsAreToldApart) {
  using End = BenchOutcome::End;
  const std::string cut_short =
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2d\r\ndata: {\"choices\":[";
  const std::string in_stream = "data: {\"error\":{\"message\":\"engine failed\"}}\n\n";
  const std::vector<std::pair<std::string, End>> cases = {
      {Stated("429 Too Many Requests", "{\"error\":{}}"), End::kRefused},
      {Stated("503 Service Unavailable", "{}"), End::kFailed},
      {Stated("200 OK", in_stream), End::kFailed},
      {cut_short, End::kFailed},
      {"", End::kFailed},
  };
  for (const auto& [answer, end] : cases) {
    const Listener listener;
    std::thread server([&listener, &answer = answer] {
      const int fd = listener.Accept();
      Listener::Read(fd);
      Listener::Write(fd, answer);
      ::close(fd);
    });
    const std::vector<Ended> ended = RunLoad(LoadOf(listener, 1, 0));
    server.join();
    ASSERT_EQ(ended.size(), 1);
    EXPECT_EQ(ended[0].outcome.end, end) << answer;
    EXPECT_NE(ended[0].outcome.error, "");
  }
}

TEST(BenchHttpTest, ACancelClosesAfterItsTokens) {
  const Listener listener;
  std::thread server([&listener] {
    const int fd = listener.Accept();
    Listener::Read(fd);
    Listener::Write(fd, "HTTP/1.1 200 OK\r\n\r\ndata: {\"choices\":[{\"text\":\"a\"}]}\n\n");
    char byte = 0;
    EXPECT_EQ(::recv(fd, &byte, 1, 0), 0);  // the client went
    ::close(fd);
  });
  BenchLoad load = LoadOf(listener, 1, 0);
  load.requests[0].cancel_after_tokens = 1;
  const std::vector<Ended> ended = RunLoad(load);
  server.join();
  ASSERT_EQ(ended.size(), 1);
  EXPECT_EQ(ended[0].outcome.end, BenchOutcome::End::kCancelled);
}

TEST(BenchHttpTest, ATimeoutEnds) {
  const Listener listener;
  std::thread server([&listener] {
    const int fd = listener.Accept();
    Listener::Read(fd);
    char byte = 0;
    EXPECT_EQ(::recv(fd, &byte, 1, 0), 0);
    ::close(fd);
  });
  BenchLoad load = LoadOf(listener, 1, 0);
  load.timeout_ms = 200;
  const std::vector<Ended> ended = RunLoad(load);
  server.join();
  ASSERT_EQ(ended.size(), 1);
  EXPECT_EQ(ended[0].outcome.end, BenchOutcome::End::kFailed);
  EXPECT_NE(ended[0].outcome.error.find("timed out"), std::string::npos);
}

TEST(BenchHttpTest, TenantsHaveTheirKeysAndSpeedDividesTimes) {
  const Listener listener;
  std::string first, second;
  std::thread server([&] {
    for (std::string* text : {&first, &second}) {
      const int fd = listener.Accept();
      *text = Listener::Read(fd);
      Listener::Write(fd, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + kEvents);
      ::close(fd);
    }
  });
  BenchLoad load = LoadOf(listener, 2, 80'000'000);
  load.requests[1].tenant = "acme";
  load.api_key = "common";
  load.tenant_keys["acme"] = "own";
  load.speed = 1000;
  EXPECT_EQ(load.ArrivalUs(load.requests[1]), 80'000);
  EXPECT_EQ(RunLoad(load).size(), 2);
  server.join();
  EXPECT_NE(first.find("Authorization: Bearer common\r\n"), std::string::npos) << first;
  EXPECT_NE(second.find("Authorization: Bearer own\r\n"), std::string::npos) << second;
}

TEST(BenchHttpTest, NobodyThereIsAFailureOfTheRequestAndNonsenseOfTheRun) {
  BenchLoad load;
  {
    const Listener gone;
    load = LoadOf(gone, 1, 0);
  }
  EXPECT_EQ(RunLoad(load)[0].outcome.end, BenchOutcome::End::kFailed);
  load.target = "localhost";
  EXPECT_FALSE(RunHttpLoad(load, [](const BenchRequest&, BenchOutcome) {}).ok());
}

}  // namespace
}  // namespace polyad
