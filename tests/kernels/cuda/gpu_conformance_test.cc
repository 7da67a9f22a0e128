// Every op of the shared table on a GPU, in both modes, against the double-precision reference.

#include "gtest/gtest.h"
#include "kernels/reference/reference_backend.h"
#include "tests/kernels/cuda/conformance.h"
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

}  // namespace
}  // namespace polyad::test
