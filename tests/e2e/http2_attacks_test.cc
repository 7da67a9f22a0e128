// The known attacks on HTTP/2 against the real program behind the proxy as it is shipped
// (deploy/nginx.conf), while an honest client streams: its tokens stay the same, memory stays
// bounded, and whoever comes afterwards is served. covers: server/grpc_server.cc

#include "tests/e2e/http2_attacks.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <fstream>
#include <sstream>
#include <thread>

#include "polyad/v1/inference.grpc.pb.h"
#include "tests/e2e/proxy_process.h"
#include "tests/e2e/server_process.h"

namespace polyad {
namespace {

using Seconds = std::chrono::duration<double>;

const std::string kGolden = std::string(POLYAD_SOURCE_DIR) + "/tests/golden";
constexpr char kPath[] = "/polyad.v1.InferenceService/Generate";
constexpr char kTenants[] = R"({"tenants": {"alice": {"keys": [
  "72ee9d4355ccb9d3a4c9dbf37382e38e75c1b1a225b5bd1f729ee91bbda30c20"]},
  "mallory": {"keys": ["a2c6db64998e297b1413b0033e66c5ac0e0a810cac887f9c6b4636f6df389ad9"],
              "max_requests": 16}}})";

v1::GenerateRequest LongRequest() {
  v1::GenerateRequest request;
  request.mutable_token_ids()->add_ids(5);
  request.mutable_sampling()->set_temperature(0);
  request.mutable_stopping()->set_max_tokens(100);
  request.mutable_stopping()->set_ignore_eos(true);
  return request;
}

// Asks the same over and over on a connection of its own; every answer has to be the first one.
class HonestClient {
 public:
  explicit HonestClient(std::shared_ptr<grpc::Channel> channel)
      : stub_(v1::InferenceService::NewStub(std::move(channel))) {
    EXPECT_TRUE(Ask(expected_)) << error_;
    EXPECT_EQ(expected_.size(), 100u);
    thread_ = std::thread([this] {
      while (!stop_.load()) {
        std::vector<int32_t> tokens;
        const auto begin = std::chrono::steady_clock::now();
        const bool same = Ask(tokens) && tokens == expected_;
        const Seconds took = std::chrono::steady_clock::now() - begin;
        worst_s_.store(std::max(worst_s_.load(), took.count()));
        if (!same) num_wrong_.fetch_add(1);
        num_asked_.fetch_add(1);
      }
    });
  }
  ~HonestClient() {
    stop_.store(true);
    thread_.join();
  }
  int num_asked() const { return num_asked_.load(); }
  int num_wrong() const { return num_wrong_.load(); }
  double TakeWorstSeconds() { return worst_s_.exchange(0); }
  const std::string& error() const { return error_; }

 private:
  bool Ask(std::vector<int32_t>& tokens) {
    grpc::ClientContext context;
    context.AddMetadata("authorization", "Bearer alice-key");
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(120));
    const auto reader = stub_->Generate(&context, LongRequest());
    for (v1::GenerateResponse response; reader->Read(&response);) {
      for (int32_t id : response.delta().token_ids()) tokens.push_back(id);
    }
    const grpc::Status status = reader->Finish();
    if (!status.ok()) error_ = status.error_message();
    return status.ok();
  }

  const std::unique_ptr<v1::InferenceService::Stub> stub_;
  std::vector<int32_t> expected_;
  std::string error_;
  std::atomic<bool> stop_{false};
  std::atomic<int> num_asked_{0};
  std::atomic<int> num_wrong_{0};
  std::atomic<double> worst_s_{0};
  std::thread thread_;
};

// What some processes have used since Begin: their peak of memory over what they had, and CPU time.
class Usage {
 public:
  explicit Usage(std::vector<pid_t> pids) : pids_(std::move(pids)) {
    for (pid_t pid : pids_) {
      std::ofstream("/proc/" + std::to_string(pid) + "/clear_refs") << "5";  // the peak is now
      before_mib_ += Mib(pid, "VmRSS:");
      before_s_ += CpuSeconds(pid);
    }
  }
  double grown_mib() const {
    double now = 0;
    for (pid_t pid : pids_) now += Mib(pid, "VmHWM:");
    return now - before_mib_;
  }
  double cpu_s() const {
    double now = 0;
    for (pid_t pid : pids_) now += CpuSeconds(pid);
    return now - before_s_;
  }

 private:
  static double Mib(pid_t pid, const std::string& field) {
    std::ifstream file("/proc/" + std::to_string(pid) + "/status");
    for (std::string line; std::getline(file, line);) {
      if (line.starts_with(field)) return std::stod(line.substr(field.size())) / 1024;
    }
    return 0;
  }
  static double CpuSeconds(pid_t pid) {
    std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
    std::string text((std::istreambuf_iterator<char>(file)), {});
    std::istringstream fields(text.substr(std::min(text.rfind(')'), text.size() - 1) + 1));
    std::string skipped;
    for (int i = 0; i < 11; ++i) fields >> skipped;
    double user = 0;
    double system = 0;
    fields >> user >> system;
    return (user + system) / static_cast<double>(::sysconf(_SC_CLK_TCK));
  }

  const std::vector<pid_t> pids_;
  double before_mib_ = 0;
  double before_s_ = 0;
};

class Http2AttacksTest : public testing::Test {
 protected:
  Http2AttacksTest() {
    folder_.Write("tenants", kTenants);
    server_ = std::make_unique<ServerProcess>(
        std::vector<std::string>{"--model", kGolden + "/models/llama", "--dtype=f32", "--kv-mib=8",
                                 "--tenants-file", folder_.Path("tenants")});
  }

  // Every attack, twice: as a stranger, and as a tenant with a quota.
  void RunAll(const std::string& address, bool tls, std::shared_ptr<grpc::Channel> channel,
              const std::vector<pid_t>& guards, double most_server_mib, double most_guard_mib) {
    HonestClient honest(channel);
    std::printf("%-34s %-8s %9s %9s %9s %9s %9s\n", "attack", "key", "took s", "server MB", "CPU s",
                "guard MB", "worst s");
    for (const bool has_key : {false, true}) {
      const http2::Target target{
          .dial = [&] { return std::make_unique<http2::Wire>(address, tls); },
          .path = kPath,
          .key = has_key ? "mallory-key" : "",
          .message = LongRequest().SerializeAsString()};
      for (const http2::Attack& attack : http2::KnownAttacks()) {
        const Usage server({server_->pid()});
        const Usage guard(guards);
        honest.TakeWorstSeconds();
        const auto begin = std::chrono::steady_clock::now();
        attack.run(target);
        // Two more answers after the attack: both began when it was over, or one of them did.
        const int asked = honest.num_asked();
        const auto served = [&] { return honest.num_asked() >= asked + 2; };
        for (int i = 0; i < 60'000 && !served(); ++i) {
          std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
        const Seconds took = std::chrono::steady_clock::now() - begin;
        std::printf("%-34s %-8s %9.2f %9.1f %9.2f %9.1f %9.2f\n", attack.name.c_str(),
                    has_key ? "yes" : "no", took.count(), server.grown_mib(), server.cpu_s(),
                    guard.grown_mib(), honest.TakeWorstSeconds());
        EXPECT_TRUE(served()) << attack.name << ": nobody is served any more";
        ASSERT_EQ(honest.num_wrong(), 0) << attack.name << ": " << honest.error();
        ASSERT_GT(server_->StatusField("Threads"), 0) << attack.name << ": the server has gone";
        EXPECT_LT(server.grown_mib(), most_server_mib) << attack.name;
        EXPECT_LT(guard.grown_mib(), most_guard_mib) << attack.name;
      }
    }
  }

  const PemFolder folder_;
  std::unique_ptr<ServerProcess> server_;
};

TEST_F(Http2AttacksTest, BehindTheShippedProxyTheyCostLittle) {
  const TestAuthority authority("authority");
  const PemPair pair = authority.SignServer();
  const ProxyProcess proxy({.grpc = server_->Address("grpc"),
                            .http = server_->Address("http"),
                            .certificate = pair.certificate,
                            .key = pair.key});
  ASSERT_TRUE(proxy.running()) << "nginx is one of tools/dependencies";
  grpc::SslCredentialsOptions options;
  options.pem_root_certs = authority.pem();
  // The frames are those of a call: with a key it is answered at length, without one in a word.
  const auto answer_bytes = [&](const std::string& key) {
    http2::Wire wire(proxy.grpc_address(), true);
    const http2::Target target{
        .dial = nullptr, .path = kPath, .key = key, .message = LongRequest().SerializeAsString()};
    wire.Send(http2::Preface() + http2::LongCall(target, 1));
    return wire.ReadFor(2);
  };
  EXPECT_GT(answer_bytes("mallory-key"), answer_bytes("wrong") + 200);
  RunAll(proxy.grpc_address(), true,
         grpc::CreateChannel(proxy.grpc_address(), grpc::SslCredentials(options)), proxy.workers(),
         64, 64);
}

}  // namespace
}  // namespace polyad
