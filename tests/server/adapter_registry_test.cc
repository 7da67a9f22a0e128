#include "server/adapter_registry.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "server/adapter_visibility.h"
#include "tests/server/fake_engine.h"

namespace polyad {
namespace {

namespace fs = std::filesystem;

class AdapterRegistryTest : public testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::path(testing::TempDir()) / ("registry-" + std::to_string(::getpid()));
    fs::create_directories(root_ / "roots" / "pirate");
    fs::create_directories(root_ / "outside");
    fs::create_symlink(root_ / "outside", root_ / "roots" / "link");
  }
  void TearDown() override { fs::remove_all(root_); }

  std::string Root() const { return (root_ / "roots").string(); }
  fs::path root_;
};

TEST_F(AdapterRegistryTest, PathsInsideARootAreFound) {
  const auto relative = ResolveAdapterUri("pirate", {Root()});
  ASSERT_TRUE(relative.ok()) << relative.status();
  EXPECT_EQ(relative->root, Root());
  EXPECT_EQ(relative->path, "pirate");
  EXPECT_TRUE(ResolveAdapterUri("file://" + Root() + "/pirate", {Root()}).ok());
  EXPECT_EQ(ResolveAdapterUri("pirate", {(root_ / "outside").string(), Root()})->root, Root());
}

TEST_F(AdapterRegistryTest, NothingOutsideTheRootsIsReached) {
  for (const std::string& uri :
       {std::string("../outside"), std::string("pirate/../../outside"), std::string("link"),
        std::string("link/x"), std::string("/etc"), std::string("file:///etc"),
        std::string("file://etc"), std::string("http://host/x"), std::string("."),
        std::string(".."), std::string("a\0b", 3), "file://" + (root_ / "outside").string(),
        Root() + "/../outside"}) {
    const auto resolved = ResolveAdapterUri(uri, {Root()});
    EXPECT_FALSE(resolved.ok()) << uri;
    const std::string message(resolved.status().message());
    if (uri.find(root_.string()) == uri.npos) {  // only what the client said is said back
      EXPECT_EQ(message.find(root_.string()), std::string::npos) << message;
    }
  }
}

TEST_F(AdapterRegistryTest, WithoutARootNothingIsServed) {
  EXPECT_EQ(ResolveAdapterUri("pirate", {}).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(AdapterRegistryTest, AnAbsentAdapterIsNotFound) {
  EXPECT_EQ(ResolveAdapterUri("nobody", {Root()}).status().code(), absl::StatusCode::kNotFound);
}

TEST(AdapterVisibilityTest, ATenantSeesOnlyWhatItMayUse) {
  FakeRegistry registry;
  LoadAdapterSpec spec;
  spec.name = "shared";
  ASSERT_TRUE(registry.Load(spec, [](LoadState) {}).ok());
  spec.name = "private";
  spec.allowed_tenants = {"alice"};
  ASSERT_TRUE(registry.Load(spec, [](LoadState) {}).ok());
  EXPECT_EQ(VisibleAdapters(registry, "alice").size(), 2u);
  ASSERT_EQ(VisibleAdapters(registry, "bob").size(), 1u);
  EXPECT_EQ(VisibleAdapters(registry, "bob")[0].report.name, "shared");
}

}  // namespace
}  // namespace polyad
