// Hostile adapter files through the admin port while clients stream: each is refused with what is
// wrong with it, in ten seconds, with no memory kept; the version that served goes on serving, and
// no stream feels it. covers: engine/adapters/adapter_loader.cc

#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>

#include "polyad/v1/adapter_admin.grpc.pb.h"
#include "tests/e2e/hostile_files.h"
#include "tests/e2e/server_process.h"
#include "tests/e2e/streams_beside.h"

namespace polyad {
namespace {

namespace fs = std::filesystem;
using std::chrono::steady_clock;

constexpr int64_t kMaxGrowthKib = 64 << 10;
constexpr double kMaxSeconds = 10;
constexpr int kLeastCases = 120;

// What a file can be refused with; never a failure of the server's own.
bool IsCallersError(grpc::StatusCode code) {
  return code == grpc::StatusCode::INVALID_ARGUMENT || code == grpc::StatusCode::NOT_FOUND ||
         code == grpc::StatusCode::FAILED_PRECONDITION ||
         code == grpc::StatusCode::RESOURCE_EXHAUSTED || code == grpc::StatusCode::UNIMPLEMENTED;
}

class HostileAdaptersTest : public testing::Test {
 protected:
  HostileAdaptersTest()
      : folder_(fs::path(testing::TempDir()) / ("hostile-" + std::to_string(::getpid()))) {
    WriteGoodAdapter(folder_ / "root" / "good");
    WriteGoodAdapter(folder_ / "outside");
    server_ = std::make_unique<ServerProcess>(std::vector<std::string>{
        "--model", std::string(POLYAD_SOURCE_DIR) + "/tests/golden/models/llama", "--dtype=f32",
        "--kv-mib=8", "--log-level=error", "--adapter-root", (folder_ / "root").string(),
        "--state-dir", (folder_ / "state").string()});
    EXPECT_FALSE(server_->ready_line().empty());
    admin_ = v1::AdapterAdminService::NewStub(
        grpc::CreateChannel(server_->Address("admin"), grpc::InsecureChannelCredentials()));
  }
  ~HostileAdaptersTest() override {
    server_.reset();
    fs::remove_all(folder_);
  }

  grpc::Status Load(const std::string& uri, v1::LoadReport* report) {
    v1::LoadAdapterRequest request;
    request.set_name("victim");
    request.set_uri(uri);
    request.set_replace(true);
    grpc::ClientContext context;
    const auto reader = admin_->LoadAdapter(&context, request);
    for (v1::LoadAdapterResponse response; reader->Read(&response);) *report = response.report();
    return reader->Finish();
  }
  v1::Adapter Victim() {
    v1::GetAdapterRequest request;
    request.set_name("victim");
    v1::GetAdapterResponse response;
    grpc::ClientContext context;
    const grpc::Status status = admin_->GetAdapter(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response.adapter();
  }
  // Once more where it was slow: the machine may have been elsewhere.
  void Try(const HostileFile& file) {
    double seconds = kMaxSeconds;
    for (int attempt = 0; attempt < 2 && seconds >= kMaxSeconds; ++attempt) {
      const fs::path place = folder_ / "root" / "hostile";
      fs::create_directories(place);
      file.write(place);
      const auto start = steady_clock::now();
      v1::LoadReport report;
      const grpc::Status status = Load("hostile", &report);
      seconds = std::chrono::duration<double>(steady_clock::now() - start).count();
      fs::remove_all(place);
      const std::string& message = status.error_message();
      if (std::getenv("POLYAD_SHOW") != nullptr) {
        std::printf("%-45s %2d %s\n", file.what.c_str(), status.error_code(), message.c_str());
      }
      EXPECT_TRUE(IsCallersError(status.error_code())) << status.error_code() << " " << message;
      EXPECT_NE(message.find(file.says), std::string::npos) << message;
      EXPECT_FALSE(message.empty());
      EXPECT_LT(message.size(), 600u) << message;
      EXPECT_EQ(message.find(folder_.string()), std::string::npos) << message;
    }
    EXPECT_LT(seconds, kMaxSeconds);
  }

  const fs::path folder_;
  std::unique_ptr<ServerProcess> server_;
  std::unique_ptr<v1::AdapterAdminService::Stub> admin_;
};

TEST_F(HostileAdaptersTest, EachIsRefusedByWhatIsWrongAndNobodyFeelsIt) {
  v1::LoadReport good;
  ASSERT_TRUE(Load("good", &good).ok());
  StreamsBeside streams(*server_, "victim");
  const std::vector<HostileFile> files = HostileFiles(folder_ / "outside");
  int64_t before_kib = 0;
  for (int pass = 0; pass < 2; ++pass) {  // what the first leaves is memory that loads use again
    before_kib = server_->StatusField("VmRSS");
    for (const HostileFile& file : files) {
      SCOPED_TRACE(file.what);
      Try(file);
      ASSERT_GT(server_->StatusField("VmRSS"), 0) << "the server is gone";
    }
  }
  streams.Stop();
  std::printf("%zu files beside %d streams\n", files.size(), streams.num_streams());
  EXPECT_GE(files.size(), static_cast<size_t>(kLeastCases));
  EXPECT_LT(server_->StatusField("VmRSS") - before_kib, kMaxGrowthKib);
  EXPECT_EQ(Victim().report().digest(), good.digest());
  EXPECT_EQ(Victim().report().version(), 1);
  fs::directory_iterator copies(folder_ / "state" / "adapters");
  EXPECT_EQ(std::distance(begin(copies), end(copies)), 1) << "the good one's";
  v1::LoadReport again;
  ASSERT_TRUE(Load("good", &again).ok());
  EXPECT_EQ(again.digest(), good.digest());
}

}  // namespace
}  // namespace polyad
