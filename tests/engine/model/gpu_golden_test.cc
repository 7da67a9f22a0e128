// Whole tiny models with all of their golden adapters on a GPU: as emulated_golden_test, on the
// device itself.

#include "gtest/gtest.h"
#include "tests/engine/model/decoding.h"
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

class GpuGraphs : public testing::TestWithParam<std::string> {};

// Again and again, so that graphs are made, changed and launched.
TEST_P(GpuGraphs, GiveTheBitsOfLaunches) {
  auto launches = test::MakeGpuBackend(ComputeMode::kAuto, "own", 1, /*graph_rows=*/0);
  POLYAD_NEED_GPU(launches);
  auto graphs = test::MakeGpuBackend(ComputeMode::kAuto, "own", 1, Decoding::kMostSequences);
  POLYAD_NEED_GPU(graphs);
  Decoding queued(GetParam(), *std::move(launches));
  Decoding recorded(GetParam(), *std::move(graphs));
  for (const size_t count : {size_t{1}, queued.num_sequences()}) {
    const auto expected = queued.Run(count);
    for (int i = 0; i < 3; ++i) ExpectSameBits(recorded.Run(count), expected);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, GpuGraphs, testing::ValuesIn(ArchitectureNames()),
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
