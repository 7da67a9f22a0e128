// Whole tiny models with all of their golden adapters on two GPUs, over NCCL, against one: the same
// bits. Skipped where there are fewer than two, or no NCCL.

#include "gtest/gtest.h"
#include "tests/engine/model/device_golden.h"
#include "tests/kernels/cuda/gpu_backend.h"

namespace polyad {
namespace {

class GpuRanks : public testing::TestWithParam<std::string> {};

TEST_P(GpuRanks, TwoGpusGiveTheBitsOfOne) {
  auto two = test::MakeGpuBackend(ComputeMode::kAuto, "own", 2);
  if (!two.ok()) GTEST_SKIP() << "no second GPU: " << two.status();
  auto one = test::MakeGpuBackend(ComputeMode::kAuto);
  ASSERT_TRUE(one.ok()) << one.status();
  DeviceModel expected(GetParam(), *std::move(one));
  DeviceModel(GetParam(), *std::move(two)).ExpectBitsOf(expected);
}

INSTANTIATE_TEST_SUITE_P(Models, GpuRanks, testing::ValuesIn(ArchitectureNames()),
                         [](const auto& model) { return model.param; });

}  // namespace
}  // namespace polyad
