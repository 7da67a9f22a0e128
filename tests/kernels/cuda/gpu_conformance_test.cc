// Every op of the shared table on a GPU, in both modes, against the double-precision reference, and
// draws against the host's sampler.

#include <cstdio>
#include <utility>

#include "gtest/gtest.h"
#include "kernels/reference/reference_backend.h"
#include "tests/kernels/cuda/conformance.h"
#include "tests/kernels/cuda/draw_work.h"
#include "tests/kernels/cuda/gpu_backend.h"
#include "tests/kernels/cuda/staged_backend.h"
#include "tests/kernels/cuda/weight_products.h"
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

// Own kernels or the library's, whichever a shape has: within the tolerance, and with a row's bits
// those of the row alone, at the widths of a small model too.
TEST(GpuProductsTest, ProductsOfCublasAreWithinTheirToleranceAndARowsBitsItsOwn) {
  const auto on_device = MakeGpuBackend(ComputeMode::kAuto, "cublas");
  POLYAD_NEED_CUBLASLT(on_device);
  StagedBackend backend(**on_device);
  ref::ReferenceBackend reference(ComputeMode::kAuto);
  for (const OpCase& op : ConformanceCases()) {
    if (!op.name.starts_with("gemm") && !op.name.starts_with("embed") &&
        !op.name.starts_with("product_of_rows")) {
      continue;
    }
    ExpectConforms(op, backend, reference);
    if (testing::Test::HasFatalFailure()) return;
  }
  for (const auto& [out, in] : {std::pair<int64_t, int64_t>{70, 192}, {960, 576}, {3072, 1536}}) {
    const StoredWeight weight = MakeWeight(DType::kBF16, out, in, 3);
    const WeightProduct together = ProductOf(backend, weight, 700);
    for (const int64_t row : {0, 9, 63, 511, 512, 699}) {
      const WeightProduct alone = ProductOf(backend, weight, 1, row);
      for (int64_t o = 0; o < out; ++o) {
        ASSERT_EQ(alone.values[static_cast<size_t>(o)],
                  together.values[static_cast<size_t>(row * out + o)])
            << "[" << out << ", " << in << "] row " << row << " output " << o;
      }
    }
  }
  std::printf("%s\n", (*on_device)->info().isa.c_str());
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
