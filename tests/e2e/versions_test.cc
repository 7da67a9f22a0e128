// Two versions of one name in the real program: a canary's share, sessions that stay, the way back
// while requests run, over gRPC and HTTP, and over a kill. Each answer's tokens are those of the
// version that it names.

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <map>
#include <set>
#include <thread>

#include "polyad/v1/inference.grpc.pb.h"
#include "tests/e2e/admin_client.h"
#include "tests/e2e/server_process.h"
#include "tests/server/raw_client.h"

namespace polyad {
namespace {

namespace fs = std::filesystem;

const std::string kGolden = std::string(POLYAD_SOURCE_DIR) + "/tests/golden";

struct Reply {
  int64_t version = 0;
  std::string digest;
  std::vector<int32_t> tokens;
};

class VersionsTest : public testing::Test {
 protected:
  VersionsTest()
      : state_(fs::path(testing::TempDir()) / ("versions-" + std::to_string(::getpid()))) {
    Start();
  }
  ~VersionsTest() override {
    server_.reset();
    fs::remove_all(state_);
  }

  void Start() {
    server_ = std::make_unique<ServerProcess>(std::vector<std::string>{
        "--model", kGolden + "/models/llama", "--dtype=f32", "--kv-mib=8", "--adapter-root",
        kGolden + "/adapters/llama", "--state-dir", state_.string()});
    ASSERT_FALSE(server_->ready_line().empty());
    admin_ = std::make_unique<Admin>(server_->Address("admin"));
    stub_ = v1::InferenceService::NewStub(
        grpc::CreateChannel(server_->Address("grpc"), grpc::InsecureChannelCredentials()));
  }
  void Kill() {
    server_->Signal(SIGKILL);
    EXPECT_EQ(server_->Wait(), 128 + SIGKILL);
    Start();
  }

  Reply Ask(const std::string& model, const std::string& session = "") {
    v1::GenerateRequest request;
    request.set_model(model);
    request.set_session(session);
    for (int32_t id = 5; id < 13; ++id) request.mutable_token_ids()->add_ids(id);
    request.mutable_sampling()->set_temperature(0);
    request.mutable_stopping()->set_max_tokens(8);
    request.mutable_stopping()->set_ignore_eos(true);
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::minutes(5));
    const auto reader = stub_->Generate(&context, request);
    Reply reply;
    for (v1::GenerateResponse response; reader->Read(&response);) {
      if (response.has_prompt()) {
        reply.version = response.prompt().adapter().version();
        reply.digest = response.prompt().adapter().digest();
      }
      for (const int32_t id : response.delta().token_ids()) reply.tokens.push_back(id);
    }
    const grpc::Status status = reader->Finish();
    EXPECT_TRUE(status.ok()) << status.error_message();
    return reply;
  }
  // Version 1 and, beside it, version 2; learns their tokens.
  void LoadBoth(double share) {
    ASSERT_TRUE(admin_->Load("a", "plain", false).has_value());
    ASSERT_TRUE(admin_->LoadBeside("a", "rslora", share).has_value());
    for (const int64_t version : {1, 2}) {
      oracle_[version] = Ask("a@" + std::to_string(version));
      ASSERT_EQ(oracle_[version].version, version);
    }
    ASSERT_NE(oracle_[1].tokens, oracle_[2].tokens);
  }
  // The version that answered, having checked that it did.
  int64_t Checked(const Reply& reply) {
    const Reply& expected = oracle_.at(reply.version);
    EXPECT_EQ(reply.digest, expected.digest);
    EXPECT_EQ(reply.tokens, expected.tokens) << "of version " << reply.version;
    return reply.version;
  }

  const fs::path state_;
  std::unique_ptr<ServerProcess> server_;
  std::unique_ptr<Admin> admin_;
  std::unique_ptr<v1::InferenceService::Stub> stub_;
  std::map<int64_t, Reply> oracle_;
};

TEST_F(VersionsTest, ACanaryHasItsShareAndASessionStays) {
  LoadBoth(0.25);
  int taken = 0;
  for (int i = 0; i < 80; ++i) taken += Checked(Ask("a")) == 2 ? 1 : 0;
  EXPECT_NEAR(taken, 20, 4);
  std::map<std::string, int64_t> at;
  for (int i = 0; i < 40; ++i) {
    const std::string session = "session-" + std::to_string(i);
    at[session] = Checked(Ask("a", session));
  }
  Kill();  // and the sessions are where they were
  taken = 0;
  for (const auto& [session, version] : at) {
    EXPECT_EQ(Checked(Ask("a", session)), version);
    taken += version == 2 ? 1 : 0;
  }
  EXPECT_GT(taken, 1);
  EXPECT_LT(taken, 25);
}

TEST_F(VersionsTest, TheWayBackIsAtOnceAndCutsNothing) {
  LoadBoth(0);
  std::atomic<bool> done{false};
  std::atomic<int> asked{0};
  std::thread asking([&] {
    while (!done) {
      Checked(Ask("a"));
      ++asked;
    }
  });
  for (int i = 0; i < 20; ++i) {
    for (const int64_t version : {2, 1}) {
      ASSERT_TRUE(admin_->Shift("a", version, 1));
      EXPECT_EQ(Checked(Ask("a")), version) << "the first request after the answer";
    }
  }
  done = true;
  asking.join();
  EXPECT_GT(asked, 20);
  ASSERT_TRUE(admin_->Shift("a", 2, 1));
  Kill();
  EXPECT_EQ(Checked(Ask("a")), 2);
  ASSERT_TRUE(admin_->Shift("a", 1, 1));
  EXPECT_EQ(Checked(Ask("a")), 1);
}

TEST_F(VersionsTest, OverHttpTheUserIsTheSession) {
  LoadBoth(0.5);
  const auto text = [&](const std::string& model, const std::string& user) {
    const std::string answer =
        polyad::Ask(server_->Address("http"),
                    Post("/v1/completions", R"({"model": ")" + model + R"(", "user": ")" + user +
                                                R"(", "prompt": [5, 6, 7, 8], "max_tokens": 8,)" +
                                                R"( "temperature": 0, "ignore_eos": true})"));
    EXPECT_EQ(StatusOf(answer), 200) << answer;
    const size_t at = answer.find("\"text\":");
    return at == std::string::npos ? "" : answer.substr(at, answer.find("\",\"", at) - at);
  };
  std::map<std::string, int> counts;
  for (int i = 0; i < 20; ++i) {
    const std::string user = "user-" + std::to_string(i);
    const std::string answer = text("a", user);
    EXPECT_EQ(answer, text("a", user));
    ++counts[answer];
  }
  EXPECT_EQ(counts.size(), 2u);
  EXPECT_TRUE(counts.contains(text("a@1", "")));
  EXPECT_TRUE(counts.contains(text("a@2", "")));
  const std::string models = polyad::Ask(server_->Address("http"), Get("/v1/models"));
  EXPECT_EQ(models.find("a@2"), std::string::npos);
  EXPECT_EQ(models.find(R"("id":"a")"), models.rfind(R"("id":"a")")) << "once";
}

}  // namespace
}  // namespace polyad
