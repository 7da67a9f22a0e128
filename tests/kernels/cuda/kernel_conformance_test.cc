// Every CUDA kernel on the shared table of op cases, under the emulator and each of its schedules,
// in both modes, against the double-precision reference; attention's cases, which take longer, are
// in paged_attention_test.cc. Then all of them, attention's too, with device memory out of the
// host's reach.

#include "gtest/gtest.h"
#include "kernels/reference/reference_backend.h"
#include "tests/kernels/cuda/conformance.h"
#include "tests/kernels/cuda/emulated_backend.h"
#include "tests/kernels/cuda/staged_backend.h"
#include "tests/kernels/simt/schedules.h"

namespace polyad::test {
namespace {

bool IsAttention(const OpCase& op) { return op.name.starts_with("attention"); }

// One backend for all cases: the emulator keeps its threads.
void ExpectConformanceOfAll(ComputeMode mode, const simt::EmulatorOptions& options) {
  EmulatedBackend backend(mode, options);
  ref::ReferenceBackend reference(mode);
  for (const OpCase& op : ConformanceCases()) {
    if (IsAttention(op)) continue;
    const int64_t launches = backend.num_launches();
    ExpectConforms(op, backend, reference);
    ASSERT_EQ(backend.fault(), "") << op.name;
    ASSERT_GT(backend.num_launches(), launches) << op.name << " ran no kernel";
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

TEST(GuardedConformanceTest, NoCallTouchesDeviceMemoryFromTheHost) {
  for (const ComputeMode mode : {ComputeMode::kAuto, ComputeMode::kF32}) {
    EmulatedBackend guarded(mode, {}, /*guarded=*/true);
    StagedBackend backend(guarded);
    ref::ReferenceBackend reference(mode);
    for (const OpCase& op : ConformanceCases()) {
      if (IsAttention(op) && mode == ComputeMode::kF32) continue;  // takes long, does no more
      const int64_t launches = guarded.num_launches();
      ExpectConforms(op, backend, reference);
      ASSERT_GT(guarded.num_launches(), launches) << op.name << " ran no kernel";
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}

TEST(GuardedDeathTest, TheHostCannotReadWhatIsNotFinished) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EmulatedBackend backend(ComputeMode::kF32, {}, /*guarded=*/true);
  const std::shared_ptr<void> memory = *backend.Allocate(64 * sizeof(float));
  auto* numbers = static_cast<float*>(memory.get());
  EXPECT_EQ(numbers[63], 0.0f);
  numbers[0] = 1.0f;
  const FloatRows rows{numbers, 1, 64, 64};
  backend.Accumulate(rows, rows);  // rows += rows
  EXPECT_DEATH({ numbers[0] = 3.0f; }, "");
  backend.Finish();
  EXPECT_EQ(numbers[0], 2.0f);
}

}  // namespace
}  // namespace polyad::test
