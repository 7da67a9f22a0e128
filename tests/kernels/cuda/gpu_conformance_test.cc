// Every op of the shared table on a GPU, in both modes, against the double-precision reference, and
// draws against the host's sampler.

#include "gtest/gtest.h"
#include "kernels/reference/reference_backend.h"
#include "tests/kernels/cuda/conformance.h"
#include "tests/kernels/cuda/draw_work.h"
#include "tests/kernels/cuda/gpu_backend.h"
#include "tests/kernels/cuda/staged_backend.h"
#include "tests/kernels/op_cases.h"

namespace polyad::test {
namespace {

class GpuConformanceTest : public testing::TestWithParam<ComputeMode> {};
INSTANTIATE_TEST_SUITE_P(All, GpuConformanceTest,
                         testing::Values(ComputeMode::kF32, ComputeMode::kAuto),
                         [](const auto& mode) {
                           return mode.param == ComputeMode::kF32 ? "exact" : "bf16";
                         });

TEST_P(GpuConformanceTest, EveryOpIsWithinItsTolerance) {
  const auto on_device = MakeGpuBackend(GetParam());
  POLYAD_NEED_GPU(on_device);
  StagedBackend backend(**on_device);
  ref::ReferenceBackend reference(GetParam());
  for (const OpCase& op : ConformanceCases()) {
    ExpectConforms(op, backend, reference);
    if (testing::Test::HasFatalFailure()) return;
  }
}

TEST(GpuDrawTest, TheTokenIsTheSamplers) {
  const auto on_device = MakeGpuBackend(ComputeMode::kAuto);
  POLYAD_NEED_GPU(on_device);
  for (const int64_t cols : {33, 4111, 49152, 151936}) {
    std::vector<DrawTrial> trials;
    for (const SamplingParams& way : WaysToDraw()) {
      trials.push_back({RandomLogits(cols, static_cast<uint32_t>(trials.size())), way});
    }
    const auto drawn = TokensOf(**on_device, trials, 50);
    const auto expected = TokensOfSampler(trials, 50);
    for (size_t i = 0; i < trials.size(); ++i) {
      EXPECT_EQ(drawn[i], expected[i]) << "way " << i << " of " << cols << " ids";
    }
  }
}

}  // namespace
}  // namespace polyad::test
