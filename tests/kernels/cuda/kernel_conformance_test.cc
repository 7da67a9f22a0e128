// Every CUDA kernel on the shared table of op cases, under the emulator and each of its schedules,
// in both modes, against the double-precision reference; attention's cases, which take longer, are
// in paged_attention_test.cc.

#include <cmath>
#include <string>
#include <string_view>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/reference/reference_backend.h"
#include "tests/kernels/cuda/emulated_backend.h"
#include "tests/kernels/op_cases.h"
#include "tests/kernels/simt/schedules.h"

namespace polyad::test {
namespace {

bool IsAttention(const OpCase& op) { return op.name.starts_with("attention"); }

// |actual - expected| / |expected|
double RelativeError(const std::vector<double>& actual, const std::vector<double>& expected) {
  double error = 0;
  double norm = 0;
  for (size_t i = 0; i < actual.size(); ++i) {
    error += (actual[i] - expected[i]) * (actual[i] - expected[i]);
    norm += expected[i] * expected[i];
  }
  return norm > 0 ? std::sqrt(error / norm) : 0.0;
}

void ExpectConformance(const OpCase& op, EmulatedBackend& backend, Backend& reference) {
  const int64_t launches = backend.num_launches();
  const std::unique_ptr<OpRun> got = op.make(backend);
  const std::unique_ptr<OpRun> want = op.make(reference);
  got->Run();
  want->Run();
  ASSERT_EQ(backend.fault(), "") << op.name;
  ASSERT_GT(backend.num_launches(), launches) << op.name << " ran no kernel";
  const std::vector<double> actual = got->Output();
  const std::vector<double> expected = want->Output();
  const std::vector<double> tolerance = want->Tolerance();
  ASSERT_EQ(actual.size(), expected.size()) << op.name;
  for (size_t i = 0; i < actual.size(); ++i) {
    ASSERT_LE(std::abs(actual[i] - expected[i]), tolerance[i])
        << op.name << " element " << i << ": expected " << expected[i] << ", got " << actual[i];
  }
  EXPECT_LE(RelativeError(actual, expected), want->NormTolerance()) << op.name;
  got->Run();
  EXPECT_EQ(got->Output(), actual) << op.name << ": something is left over between calls";
}

// One backend for all cases: the emulator keeps its threads.
void ExpectConformanceOfAll(ComputeMode mode, const simt::EmulatorOptions& options) {
  EmulatedBackend backend(mode, options);
  ref::ReferenceBackend reference(mode);
  for (const OpCase& op : ConformanceCases()) {
    if (!IsAttention(op)) ExpectConformance(op, backend, reference);
    if (testing::Test::HasFatalFailure()) return;
  }
}

class KernelConformanceTest : public testing::TestWithParam<simt::EmulatorOptions> {};
INSTANTIATE_TEST_SUITE_P(All, KernelConformanceTest, testing::ValuesIn(simt::Schedules()),
                         simt::NameOfSchedule);

TEST_P(KernelConformanceTest, EveryKernelIsWithinItsToleranceInBf16) {
  ExpectConformanceOfAll(ComputeMode::kAuto, GetParam());
}

TEST_P(KernelConformanceTest, EveryKernelIsWithinItsToleranceInTheExactMode) {
  ExpectConformanceOfAll(ComputeMode::kF32, GetParam());
}

}  // namespace
}  // namespace polyad::test
