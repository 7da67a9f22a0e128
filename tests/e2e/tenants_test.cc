// The real program with tenants: keys that come and go while it serves, quotas, adapters of one
// tenant alone, deadlines, and a second signal. covers: server/command_serve.cc

#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include "engine/base/digest.h"
#include "google/rpc/status_details.pb.h"
#include "tests/e2e/clients.h"
#include "tests/e2e/server_process.h"
#include "tests/server/raw_client.h"

namespace polyad {
namespace {

const std::string kGolden = std::string(POLYAD_SOURCE_DIR) + "/tests/golden";

std::string KeyDigest(const std::string& key) {
  Sha256 sha;
  sha.Update(key);
  return ToHex(sha.Finish());
}

// A tenant whose key is "<name>-key".
std::string Tenant(const std::string& name, const std::string& members = "") {
  return "\"" + name + "\": {\"keys\": [\"" + KeyDigest(name + "-key") + "\"]" +
         (members.empty() ? "" : ", ") + members + "}";
}

class TenantsTest : public testing::Test {
 protected:
  TenantsTest() {
    std::string pattern = testing::TempDir() + "/tenants-XXXXXX";
    folder_ = ::mkdtemp(pattern.data());
    Write("admin", "admin-token");
  }
  ~TenantsTest() override {
    server_.reset();
    std::filesystem::remove_all(folder_);
  }

  void Write(const std::string& name, const std::string& text) const {
    std::ofstream(folder_ + "/next") << text;
    std::filesystem::rename(folder_ + "/next", folder_ + "/" + name);
  }
  void WriteTenants(const std::string& tenants) const {
    Write("tenants", "{\"tenants\": {" + tenants + "}}");
  }
  void Start(const std::string& tenants) {
    WriteTenants(tenants);
    server_ = std::make_unique<ServerProcess>(
        std::vector<std::string>{"--model", kGolden + "/models/llama", "--dtype=f32", "--kv-mib=8",
                                 "--adapter-root", kGolden + "/adapters/llama", "--tenants-file",
                                 folder_ + "/tenants", "--admin-token-file", folder_ + "/admin"});
    ASSERT_FALSE(server_->ready_line().empty());
  }

  std::string Http(const std::string& key, const std::string& body) const {
    return Ask(server_->Address("http"),
               Post("/v1/completions", body, "Authorization: Bearer " + key + "\r\n"));
  }
  bool Opens(const std::string& key) const {
    return StatusOf(Http(key, R"({"prompt": "a", "max_tokens": 1})")) == 200;
  }
  bool HasMetric(const std::string& line) const {
    return Ask(server_->Address("http"), Get("/metrics", "Authorization: Bearer admin-token\r\n"))
               .find("\n" + line + "\n") != std::string::npos;
  }
  template <typename Condition>
  static bool Eventually(Condition condition) {
    for (int i = 0; i < 500; ++i) {
      if (condition()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    return false;
  }
  // A long generation over gRPC until its deadline or its end.
  grpc::Status Long(const std::string& key, std::chrono::milliseconds deadline,
                    const std::string& model = "") const {
    const auto stub = v1::InferenceService::NewStub(
        grpc::CreateChannel(server_->Address("grpc"), grpc::InsecureChannelCredentials()));
    v1::GenerateRequest request;
    request.set_model(model);
    request.mutable_token_ids()->add_ids(5);
    request.mutable_stopping()->set_max_tokens(100);
    request.mutable_stopping()->set_ignore_eos(true);
    request.mutable_sampling()->set_n(16);
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + deadline);
    context.AddMetadata("authorization", "Bearer " + key);
    const auto reader = stub->Generate(&context, request);
    for (v1::GenerateResponse response; reader->Read(&response);) {
    }
    return reader->Finish();
  }

  std::string folder_;
  std::unique_ptr<ServerProcess> server_;
};

TEST_F(TenantsTest, KeysComeAndGoWithTheFile) {
  Start(Tenant("alice"));
  EXPECT_TRUE(Opens("alice-key"));
  EXPECT_FALSE(Opens("carol-key"));
  WriteTenants(Tenant("carol"));
  server_->Signal(SIGHUP);
  EXPECT_TRUE(Eventually([&] { return Opens("carol-key"); }));
  EXPECT_FALSE(Opens("alice-key"));
  Write("tenants", "{\"tenants\": {\"carol\": {\"wieght\": 1}}}");  // seen without a signal
  EXPECT_TRUE(Eventually([&] { return HasMetric("polyad_credentials_stale 1"); }));
  EXPECT_TRUE(Opens("carol-key")) << "what was in force stays";
  WriteTenants(Tenant("alice"));
  EXPECT_TRUE(Eventually([&] { return Opens("alice-key"); }));
  EXPECT_TRUE(HasMetric("polyad_credentials_stale 0"));
}

TEST_F(TenantsTest, AQuotaRefusesWhatIsTooMuchAndSaysWhen) {
  Start(Tenant("alice", R"("tokens_per_second": 1, "burst_tokens": 40)") + ", " + Tenant("bob"));
  const std::string body = R"({"prompt": [5], "max_tokens": 30, "ignore_eos": true})";
  ASSERT_EQ(StatusOf(Http("alice-key", body)), 200);
  const std::string refused = Http("alice-key", body);
  EXPECT_EQ(StatusOf(refused), 429);
  EXPECT_NE(refused.find("quota tokens_per_second: expected"), std::string::npos) << refused;
  EXPECT_EQ(refused.find("bob"), std::string::npos);
  const size_t retry = refused.find("Retry-After: ");
  ASSERT_NE(retry, std::string::npos);
  // 31 of 40 tokens are gone: 22 are wanted, one comes each second.
  EXPECT_NEAR(std::stoi(refused.substr(retry + 13)), 21, 2);
  const grpc::Status status = Long("alice-key", std::chrono::seconds(20));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  google::rpc::Status details;
  ASSERT_TRUE(details.ParseFromString(status.error_details()));
  google::rpc::QuotaFailure failure;
  google::rpc::RetryInfo info;
  for (const auto& detail : details.details()) {
    detail.UnpackTo(&failure);
    detail.UnpackTo(&info);
  }
  ASSERT_EQ(failure.violations_size(), 1);
  EXPECT_EQ(failure.violations(0).subject(), "tokens_per_second");
  EXPECT_GT(info.retry_delay().seconds(), 10);
  EXPECT_EQ(StatusOf(Http("bob-key", body)), 200);
  EXPECT_TRUE(HasMetric("polyad_quota_refusals_total{quota=\"tokens_per_second\"} 2"));
}

TEST_F(TenantsTest, AForeignAdapterIsAnsweredAsAnAbsentOne) {
  Start(Tenant("alice") + ", " + Tenant("bob"));
  const auto admin = v1::AdapterAdminService::NewStub(
      grpc::CreateChannel(server_->Address("admin"), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  context.AddMetadata("authorization", "Bearer admin-token");
  v1::LoadAdapterRequest load;
  load.set_name("pirate");
  load.set_uri("plain");
  load.add_allowed_tenants("alice");
  const auto reader = admin->LoadAdapter(&context, load);
  for (v1::LoadAdapterResponse state; reader->Read(&state);) {
  }
  ASSERT_TRUE(reader->Finish().ok());
  EXPECT_TRUE(Long("alice-key", std::chrono::seconds(20), "pirate").ok());
  const auto told = [](std::string text, const std::string& name) {
    for (size_t at; (at = text.find(name)) != std::string::npos;)
      text.replace(at, name.size(), "X");
    return text;
  };
  for (const std::string suffix : {"", "@1", "@2"}) {
    const auto seconds = std::chrono::seconds(20);
    const grpc::Status foreign = Long("bob-key", seconds, "pirate" + suffix);
    const grpc::Status absent = Long("bob-key", seconds, "nobody" + suffix);
    EXPECT_EQ(foreign.error_code(), grpc::StatusCode::NOT_FOUND);
    EXPECT_EQ(foreign.error_code(), absent.error_code());
    EXPECT_EQ(told(foreign.error_message(), "pirate"), told(absent.error_message(), "nobody"));
  }
  const auto http = [&](const std::string& name) {
    const std::string body = R"({"prompt": "a", "model": ")" + name + R"("})";
    return told(Http("bob-key", body), name);
  };
  EXPECT_EQ(http("pirate"), http("nobody"));
}

TEST_F(TenantsTest, ADeadlineEndsWhatRunsAndLeavesNothing) {
  Start(Tenant("alice"));
  const auto status = Long("alice-key", std::chrono::milliseconds(10));
  EXPECT_TRUE(status.ok() || status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED ||
              status.error_code() == grpc::StatusCode::CANCELLED)
      << status.error_message();
  EXPECT_TRUE(Eventually([&] {
    return HasMetric("vllm:num_requests_running 0") && HasMetric("polyad_kv_blocks_used 0") &&
           HasMetric("polyad_queued_tokens 0") && HasMetric("polyad_request_bytes 0");
  }));
}

TEST_F(TenantsTest, ASecondSignalEndsTheServerAtOnce) {
  Start(Tenant("alice"));
  RawClient client(server_->Address("http"));  // keeps a stream under way for much longer
  client.Send(Post("/v1/completions",
                   R"({"prompt": [5], "max_tokens": 100, "n": 16, "ignore_eos": true,
                       "stream": true})",
                   "Authorization: Bearer alice-key\r\n"));
  client.ReadUntil("data: ");
  server_->Signal(SIGTERM);
  server_->Signal(SIGINT);
  const auto begin = std::chrono::steady_clock::now();
  const int code = server_->Wait();
  EXPECT_TRUE(code == 130 || code == 0) << code;  // 0: the stream had ended in the meantime
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(5));
}

}  // namespace
}  // namespace polyad
