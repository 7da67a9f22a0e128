// Whole tiny models with all of their golden adapters on a GPU: as emulated_golden_test, on the
// device itself.

#include "gtest/gtest.h"
#include "tests/engine/model/device_golden.h"
#include "tests/kernels/cuda/gpu_backend.h"

namespace polyad {
namespace {

class GpuGolden : public testing::TestWithParam<std::string> {};

TEST_P(GpuGolden, EveryTenantGetsWhatTheOriginalComputes) {
  auto backend = test::MakeGpuBackend(ComputeMode::kF32);
  POLYAD_NEED_GPU(backend);
  DeviceModel(GetParam(), *std::move(backend)).ExpectGoldenLogits();
}

INSTANTIATE_TEST_SUITE_P(Models, GpuGolden, testing::ValuesIn(ArchitectureNames()),
                         [](const auto& model) { return model.param; });

class GpuInBf16 : public testing::TestWithParam<std::string> {};

TEST_P(GpuInBf16, EveryTenantIsAsNearToTheOriginalAsItsRoundingsAllow) {
  auto backend = test::MakeGpuBackend(ComputeMode::kAuto);
  POLYAD_NEED_GPU(backend);
  DeviceModel(GetParam(), *std::move(backend)).ExpectGoldenLogitsUpToRounding();
}

INSTANTIATE_TEST_SUITE_P(Models, GpuInBf16, testing::ValuesIn(GoldenNamesIn("models")),
                         [](const auto& model) { return model.param; });

class GpuWithCublas : public testing::TestWithParam<std::string> {};

TEST_P(GpuWithCublas, EveryTenantIsAsNearToTheOriginalAsItsRoundingsAllow) {
  auto backend = test::MakeGpuBackend(ComputeMode::kAuto, "cublas");
  POLYAD_NEED_CUBLASLT(backend);
  DeviceModel(GetParam(), *std::move(backend)).ExpectGoldenLogitsUpToRounding();
}

INSTANTIATE_TEST_SUITE_P(Models, GpuWithCublas, testing::ValuesIn(ArchitectureNames()),
                         [](const auto& model) { return model.param; });

}  // namespace
}  // namespace polyad
