#include "kernels/cuda/plugin_loader.h"

#include <cstdlib>
#include <filesystem>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cuda/plugin_api.h"

namespace polyad::cuda {
namespace {

using ::testing::HasSubstr;

std::string FakePlugin(int kind) {
  return std::string(POLYAD_FAKE_PLUGINS) + "/fake_plugin" + std::to_string(kind) + ".so";
}

// What the program says of a plugin that it is told to take.
absl::Status Refusal(const std::string& path, int device = 0) {
  BackendOptions options;
  options.cuda_plugin = path;
  options.cuda_device = device;
  return MakeCudaBackend(options).status();
}

TEST(PluginLoaderTest, SaysThatTheLibraryIsMissing) {
  const absl::Status status = Refusal("/nowhere/polyad_no_such_plugin.so");
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("/nowhere/polyad_no_such_plugin.so"));
}

TEST(PluginLoaderTest, RefusesWhatIsNoPluginOrOfAnotherVersionOrBuild) {
  const absl::Status other = CudaPlugin::Open(FakePlugin(0)).status();
  EXPECT_EQ(other.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(other.message()), HasSubstr("it has no polyad_cuda_plugin"));
  const absl::Status newer = CudaPlugin::Open(FakePlugin(1)).status();
  EXPECT_EQ(newer.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(newer.message()),
              HasSubstr("expected version " + std::to_string(POLYAD_CUDA_ABI_VERSION)));
  const absl::Status build = CudaPlugin::Open(FakePlugin(4)).status();
  EXPECT_EQ(build.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(build.message()), HasSubstr("got another build"));
}

TEST(PluginLoaderTest, SaysThatTheDriverIsMissing) {
  const absl::Status status = Refusal(FakePlugin(2));
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("no driver"));
}

TEST(PluginLoaderTest, TellsOfDevices) {
  const auto plugin = CudaPlugin::Open(FakePlugin(3));
  ASSERT_TRUE(plugin.ok()) << plugin.status();
  const auto devices = (*plugin)->Devices();
  ASSERT_TRUE(devices.ok()) << devices.status();
  ASSERT_EQ(devices->size(), 2u);
  EXPECT_EQ(devices->front().name, "Fake 9000");
  EXPECT_EQ(devices->front().compute_major, 9);
  EXPECT_TRUE(devices->front().can_run);
}

TEST(PluginLoaderTest, SaysWhyADeviceIsNotTaken) {
  EXPECT_THAT(std::string(Refusal(FakePlugin(5)).message()),
              HasSubstr("CUDA device 0 (Fake 9000): the plugin has no code for compute"));
  EXPECT_THAT(std::string(Refusal(FakePlugin(3), 2).message()),
              HasSubstr("expected a device of 0 to 1, got 2"));
  EXPECT_THAT(std::string(Refusal(FakePlugin(3)).message()),
              HasSubstr("CUDA device 0 (Fake 9000): it is no device at all"));
}

TEST(PluginLoaderTest, SaysWhichOptionIsWrong) {
  BackendOptions options;
  options.cuda_plugin = FakePlugin(3);
  for (const int64_t rows : {-1, 1025}) {
    options.cuda_graph_rows = rows;
    const absl::Status status = MakeCudaBackend(options).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(status.message(), "CUDA graph rows: expected 0 to 1024, got " + std::to_string(rows));
  }
}

TEST(PluginLoaderTest, SaysWhyRanksAreNotTaken) {
  BackendOptions options;
  options.cuda_plugin = FakePlugin(3);
  options.num_ranks = 3;
  EXPECT_THAT(std::string(MakeCudaRanks(options).status().message()),
              HasSubstr("expected 3 devices for as many ranks, got 2 from device 0 on"));
  options.num_ranks = 2;
  options.cuda_device = 1;
  EXPECT_THAT(std::string(MakeCudaRanks(options).status().message()),
              HasSubstr("expected 2 devices for as many ranks, got 1 from device 1 on"));
  options.cuda_device = 0;
  EXPECT_THAT(std::string(MakeCudaRanks(options).status().message()),
              HasSubstr("CUDA: 2 ranks: NCCL libnccl.so.2: it is nowhere"));
  options.cuda_plugin = FakePlugin(5);
  options.num_ranks = 1;
  EXPECT_THAT(std::string(MakeCudaRanks(options).status().message()),
              HasSubstr("the plugin has no code for compute"));
}

// The plugin itself, where it was built (tools/dev cuda): it opens without a driver and says so.
TEST(PluginLoaderTest, TheBuiltPluginOpensAndTellsOfDevicesOrWhyThereAreNone) {
  const char* told = std::getenv("POLYAD_CUDA_PLUGIN");
  const std::string path =
      told != nullptr ? told : std::string(POLYAD_SOURCE_DIR) + "/build/cuda/lib/polyad_cuda.so";
  if (told == nullptr && !std::filesystem::exists(path)) GTEST_SKIP() << "not built: " << path;
  const auto plugin = CudaPlugin::Open(path);
  if (told == nullptr && !plugin.ok() && absl::IsFailedPrecondition(plugin.status())) {
    GTEST_SKIP() << "of an older build: " << plugin.status();
  }
  ASSERT_TRUE(plugin.ok()) << plugin.status();
  const auto devices = (*plugin)->Devices();
  if (devices.ok()) {
    EXPECT_FALSE(devices->front().name.empty());
  } else {
    EXPECT_EQ(devices.status().code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(std::string(devices.status().message()), HasSubstr("no device can be used: "));
  }
}

}  // namespace
}  // namespace polyad::cuda
