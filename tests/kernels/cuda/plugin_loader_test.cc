#include "kernels/cuda/plugin_loader.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace polyad::cuda {
namespace {

using ::testing::HasSubstr;

std::string FakePlugin(int kind) {
  return std::string(POLYAD_FAKE_PLUGINS) + "/fake_plugin" + std::to_string(kind) + ".so";
}

TEST(PluginLoaderTest, SaysThatTheLibraryIsMissing) {
  const absl::Status status = CudaPlugin::Open("polyad_no_such_plugin.so").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("polyad_no_such_plugin.so"));
}

TEST(PluginLoaderTest, RefusesWhatIsNoPluginOrOfAnotherVersion) {
  const absl::Status other = CudaPlugin::Open(FakePlugin(0)).status();
  EXPECT_EQ(other.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(other.message()), HasSubstr("it has no polyad_cuda_plugin"));
  const absl::Status newer = CudaPlugin::Open(FakePlugin(1)).status();
  EXPECT_EQ(newer.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(newer.message()), HasSubstr("expected version 1"));
}

TEST(PluginLoaderTest, SaysThatTheDriverIsMissing) {
  const auto plugin = CudaPlugin::Open(FakePlugin(2));
  ASSERT_TRUE(plugin.ok()) << plugin.status();
  const absl::Status status = (*plugin)->Devices().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("no driver"));
}

TEST(PluginLoaderTest, TellsOfDevices) {
  const auto plugin = CudaPlugin::Open(FakePlugin(3));
  ASSERT_TRUE(plugin.ok()) << plugin.status();
  const auto devices = (*plugin)->Devices();
  ASSERT_TRUE(devices.ok()) << devices.status();
  ASSERT_EQ(devices->size(), 1u);
  EXPECT_EQ(devices->front().name, "Fake 9000");
  EXPECT_EQ(devices->front().compute_major, 9);
  EXPECT_TRUE(devices->front().can_run);
}

}  // namespace
}  // namespace polyad::cuda
