// Whole tiny models with all of their golden adapters in one batch, on the CPU and on emulated
// devices, split among ranks: the bits of one backend.

#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/backend_factory.h"
#include "kernels/shard/host_group.h"
#include "kernels/shard/sharded_backend.h"
#include "tests/engine/model/device_golden.h"
#include "tests/kernels/cuda/emulated_backend.h"

namespace polyad {
namespace {

std::unique_ptr<Backend> MakeCpu(ComputeMode mode, int num_ranks) {
  BackendOptions options;
  options.mode = mode;
  options.num_threads = num_ranks;
  options.num_ranks = num_ranks;
  return *MakeBackend("cpu", options);
}

void ExpectBitsOfOne(const std::string& name, ComputeMode mode, int num_ranks,
                     KvFormat kv_format = KvFormat::kAuto) {
  DeviceModel one(name, MakeCpu(mode, 1), kv_format);
  DeviceModel(name, MakeCpu(mode, num_ranks), kv_format).ExpectBitsOf(one);
}

// Models of the goldens whose kv heads can be split among two.
std::vector<std::string> SplitNames() {
  std::vector<std::string> names;
  for (const std::string& name : GoldenNamesIn("models")) {
    const StatusOr<ModelFiles> files = OpenModel(GoldenModelFile(name));
    if (files.ok() && files->spec().num_kv_heads >= 2) names.push_back(name);
  }
  return names;
}

class RanksGolden : public testing::TestWithParam<std::string> {};

TEST_P(RanksGolden, TwoRanksGiveEveryTenantTheBitsOfOneInTheExactMode) {
  ExpectBitsOfOne(GetParam(), ComputeMode::kF32, 2);
}

TEST_P(RanksGolden, TwoRanksGiveEveryTenantTheBitsOfOneWithIntegers) {
  ExpectBitsOfOne(GetParam(), ComputeMode::kAuto, 2);
}

INSTANTIATE_TEST_SUITE_P(Models, RanksGolden, testing::ValuesIn(SplitNames()),
                         [](const auto& model) { return model.param; });

TEST(RanksGoldenTest, SoDoRanksOfDifferentSizesAndKvCodes) {
  ExpectBitsOfOne("gpt2", ComputeMode::kBF16, 3);  // two heads and one and one
  ExpectBitsOfOne("llama_sharded", ComputeMode::kF32, 4);
  ExpectBitsOfOne("qwen3", ComputeMode::kBF16, 2, KvFormat::kInt4);
}

// What CUDA ranks do, with a host's copies in the place of NCCL.
TEST(RanksGoldenTest, EmulatedDevicesGiveTheBitsOfOneDevice) {
  Ranks ranks;
  std::vector<test::EmulatedBackend*> devices;
  for (int rank = 0; rank < 2; ++rank) {
    auto device =
        std::make_unique<test::EmulatedBackend>(ComputeMode::kAuto, simt::EmulatorOptions{}, true);
    devices.push_back(device.get());
    ranks.backends.push_back(std::move(device));
  }
  ranks.communicators =
      MakeHostGroup(2, [devices](int rank) { devices[static_cast<size_t>(rank)]->Finish(); });
  absl::StatusOr<std::unique_ptr<Backend>> two = ShardedBackend::Create(std::move(ranks));
  ASSERT_TRUE(two.ok()) << two.status();
  DeviceModel split("llama", *std::move(two));
  DeviceModel one("llama", std::make_unique<test::EmulatedBackend>(ComputeMode::kAuto,
                                                                   simt::EmulatorOptions{}, true));
  split.ExpectBitsOf(one);
  for (test::EmulatedBackend* device : devices) EXPECT_EQ(device->fault(), "");
}

}  // namespace
}  // namespace polyad
