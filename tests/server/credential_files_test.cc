#include "server/credential_files.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "tests/server/serving_fixture.h"

namespace polyad {
namespace {

class CredentialFilesTest : public testing::Test {
 protected:
  CredentialFilesTest() {
    std::filesystem::create_directories(folder_);
    Write("tenants.json", kTenantsFile);
    Write("admin", "admin-token\n");
  }
  ~CredentialFilesTest() override { std::filesystem::remove_all(folder_); }

  // As an operator should: a new file takes the old one's place whole.
  void Write(const std::string& name, const std::string& text) {
    std::ofstream(folder_ / "next") << text;
    std::filesystem::rename(folder_ / "next", folder_ / name);
  }
  CredentialPaths Paths() const {
    return {(folder_ / "tenants.json").string(), (folder_ / "admin").string(), ""};
  }
  static bool Opens(const Credentials& credentials, const std::string& key) {
    return credentials.Authorize(Access::kTenant, Reach::kThisMachine, "Bearer " + key).ok();
  }

  const std::filesystem::path folder_ =
      std::filesystem::path(testing::TempDir()) /
      (std::string("credentials-") + testing::UnitTest::GetInstance()->current_test_info()->name());
  Metrics metrics_;
};

constexpr char kCarolsFile[] = R"({"tenants": {"carol": {"keys": [
  "368c3387fc9b5ce6ab156ad952031f52bc9154e89a727020cd314f8910a21823"]}}})";

TEST_F(CredentialFilesTest, AChangedFileIsReadAgainByItself) {
  Credentials credentials(LoadCredentials(Paths()).value());
  CredentialFiles files(Paths(), credentials, metrics_);
  files.ReloadIfChanged();
  EXPECT_NE(metrics_.Render({}).find("polyad_credentials_reloads_total{result=\"ok\"} 0"),
            std::string::npos)
      << "nothing has changed";
  Write("tenants.json", R"({"tenants": {"alice": {}}})");
  EXPECT_TRUE(Opens(credentials, "alice-key")) << "not before it is asked to";
  files.ReloadIfChanged();
  EXPECT_FALSE(Opens(credentials, "alice-key")) << "the key is revoked";
  Write("tenants.json", kTenantsFile);
  EXPECT_TRUE(files.Reload().ok());
  EXPECT_TRUE(Opens(credentials, "alice-key"));
  EXPECT_NE(metrics_.Render({}).find("polyad_credentials_reloads_total{result=\"ok\"} 2"),
            std::string::npos);
}

TEST_F(CredentialFilesTest, ABadFileLeavesWhatWasInForceAndSaysSo) {
  Credentials credentials(LoadCredentials(Paths()).value());
  CredentialFiles files(Paths(), credentials, metrics_);
  for (const char* bad : {"", "{", R"({"tenants": {}})", R"({"tenants": {"alice": {"x": 1}}})"}) {
    Write("tenants.json", bad);
    files.ReloadIfChanged();
    EXPECT_TRUE(Opens(credentials, "alice-key")) << bad;
    EXPECT_NE(metrics_.Render({}).find("polyad_credentials_stale 1"), std::string::npos) << bad;
  }
  std::filesystem::remove(folder_ / "tenants.json");
  files.ReloadIfChanged();
  EXPECT_TRUE(Opens(credentials, "alice-key")) << "no file is no invitation to everybody";
  Write("tenants.json", kCarolsFile);
  files.ReloadIfChanged();
  EXPECT_FALSE(Opens(credentials, "alice-key"));
  EXPECT_NE(metrics_.Render({}).find("polyad_credentials_stale 0"), std::string::npos);
}

TEST_F(CredentialFilesTest, ABadTokenKeepsTheTenantsToo) {
  Credentials credentials(LoadCredentials(Paths()).value());
  CredentialFiles files(Paths(), credentials, metrics_);
  Write("tenants.json", kCarolsFile);
  Write("admin", "");
  files.ReloadIfChanged();
  EXPECT_TRUE(Opens(credentials, "alice-key")) << "all of the new ones or none";
  EXPECT_TRUE(
      credentials.Authorize(Access::kAdmin, Reach::kThisMachine, "Bearer admin-token").ok());
}

}  // namespace
}  // namespace polyad
