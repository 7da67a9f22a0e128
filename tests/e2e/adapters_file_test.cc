// The program with --adapters-from: it is ready with what is declared, follows the file as a
// kubelet changes it, keeps what others loaded, and after a kill is as the file says.

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <set>
#include <thread>

#include "tests/e2e/clients.h"
#include "tests/e2e/server_process.h"

namespace polyad {
namespace {

namespace fs = std::filesystem;
using Names = std::set<std::string>;

const std::string kGolden = std::string(POLYAD_SOURCE_DIR) + "/tests/golden";

int64_t MillisNow() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

class AdaptersFileTest : public testing::Test {
 protected:
  AdaptersFileTest()
      : folder_(fs::path(testing::TempDir()) / ("adapters-file-" + std::to_string(::getpid()))) {
    fs::create_directories(folder_ / "declared");
  }
  ~AdaptersFileTest() override {
    server_.reset();
    fs::remove_all(folder_);
  }

  // name=uri pairs, as a ConfigMap whose `..data` is swapped.
  void Declare(const std::vector<std::pair<std::string, std::string>>& adapters) {
    std::string text;
    for (const auto& [name, uri] : adapters) {
      text += (text.empty() ? "" : ",") + (R"({"name": ")" + name + R"(", "uri": ")" + uri + "\"}");
    }
    DeclareText(R"({"adapters": [)" + text + "]}");
  }
  void DeclareText(const std::string& text) {
    const fs::path home = folder_ / "declared";
    const std::string next = "..data-" + std::to_string(++num_writes_);
    fs::create_directories(home / next);
    std::ofstream(home / next / "adapters.json") << text;
    fs::create_directory_symlink(next, home / "..tmp");
    fs::rename(home / "..tmp", home / "..data");
    if (num_writes_ == 1) fs::create_symlink("..data/adapters.json", home / "adapters.json");
  }
  void Start(bool is_durable) {
    std::vector<std::string> args = {
        "--model",         kGolden + "/models/llama",
        "--dtype=f32",     "--kv-mib=8",
        "--adapter-root",  kGolden + "/adapters/llama",
        "--adapters-from", (folder_ / "declared/adapters.json").string()};
    if (is_durable) args.insert(args.end(), {"--state-dir", (folder_ / "state").string()});
    server_.reset();
    server_ = std::make_unique<ServerProcess>(args);
    ASSERT_FALSE(server_->ready_line().empty());
    stub_ = v1::AdapterAdminService::NewStub(
        grpc::CreateChannel(server_->Address("admin"), grpc::InsecureChannelCredentials()));
  }
  Names Loaded() {
    v1::ListAdaptersResponse response;
    grpc::ClientContext context;
    EXPECT_TRUE(stub_->ListAdapters(&context, {}, &response).ok());
    Names names;
    for (const v1::Adapter& adapter : response.adapters()) {
      if (!adapter.retired()) names.insert(adapter.report().name());
    }
    return names;
  }
  v1::AdaptersFile State() {
    v1::GetLoadResponse response;
    grpc::ClientContext context;
    EXPECT_TRUE(stub_->GetLoad(&context, {}, &response).ok());
    return response.adapters_file();
  }
  // -> milliseconds until `condition` holds; -1: not within a minute
  template <typename Condition>
  int64_t Until(Condition condition) {
    for (const int64_t begin_ms = MillisNow(); MillisNow() - begin_ms < 60'000;) {
      if (condition()) return MillisNow() - begin_ms;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return -1;
  }

  const fs::path folder_;
  int num_writes_ = 0;
  std::unique_ptr<ServerProcess> server_;
  std::unique_ptr<v1::AdapterAdminService::Stub> stub_;
};

TEST_F(AdaptersFileTest, TheServerIsWhatTheFileSaysOverChangesAndAKill) {
  Declare({{"a", "plain"}, {"b", "rslora"}, {"broken", "not-there"}});
  Start(/*is_durable=*/true);
  EXPECT_EQ(Loaded(), (Names{"a", "b"})) << "when it is ready, not some time later";
  v1::AdaptersFile state = State();
  EXPECT_EQ(state.num_declared(), 3);
  EXPECT_EQ(state.num_in_place(), 2);
  ASSERT_EQ(state.failures_size(), 1);
  EXPECT_EQ(state.failures(0).name(), "broken");

  Admin(*server_).Load("by-hand", "plain");
  Declare({{"b", "plain"}, {"c", "rslora"}});
  const int64_t took_ms = Until([&] { return Loaded() == Names{"b", "by-hand", "c"}; });
  ASSERT_GE(took_ms, 0);
  RecordProperty("convergence_ms", static_cast<int>(took_ms));
  std::printf("convergence_ms %d\n", static_cast<int>(took_ms));
  EXPECT_GE(Until([&] { return State().num_in_place() == 2 && State().failures_size() == 0; }), 0);
  EXPECT_TRUE(Generate(server_->Address("grpc"), "c", {5, 6, 7}, 4).status.ok());

  DeclareText(R"({"adapters": [{"name": "c", "uri": "plain"}, {"name": "c", "uri": "rslora"}]})");
  EXPECT_GE(Until([&] { return State().stale(); }), 0);
  EXPECT_NE(State().error().find("'c': declared twice"), std::string::npos);
  EXPECT_EQ(Loaded(), (Names{"b", "by-hand", "c"}));

  server_->Signal(SIGKILL);
  server_->Wait();
  Declare({{"c", "rslora"}});
  Start(/*is_durable=*/true);
  EXPECT_EQ(Loaded(), (Names{"by-hand", "c"})) << "b left the file while no server ran";
  EXPECT_EQ(State().num_in_place(), 1);
}

TEST_F(AdaptersFileTest, AThousandAdaptersAreThereInHalfAMinute) {
  std::vector<std::pair<std::string, std::string>> adapters;
  for (int i = 0; i < 1000; ++i) {
    adapters.emplace_back("a" + std::to_string(i), i % 2 == 0 ? "plain" : "rslora");
  }
  Declare({});
  Start(/*is_durable=*/false);
  Declare(adapters);
  const int64_t took_ms = Until([&] { return State().num_in_place() == 1000; });
  ASSERT_GE(took_ms, 0);
  RecordProperty("thousand_ms", static_cast<int>(took_ms));
  std::printf("thousand_ms %d\n", static_cast<int>(took_ms));
  EXPECT_EQ(Loaded().size(), 1000);
}

TEST_F(AdaptersFileTest, AServerDoesNotStartWithAFileThatItCannotTake) {
  DeclareText(R"({"adapters": [{"name": "a", "uri": "plain", "weight": 2}]})");
  ServerProcess server({"--model", kGolden + "/models/llama", "--dtype=f32", "--adapter-root",
                        kGolden + "/adapters/llama", "--adapters-from",
                        (folder_ / "declared/adapters.json").string()});
  EXPECT_EQ(server.ready_line(), "");
  EXPECT_EQ(server.Wait(), 2);
}

}  // namespace
}  // namespace polyad
