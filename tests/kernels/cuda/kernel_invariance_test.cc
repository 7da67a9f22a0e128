// The promise of kernels/api/backend.h for the CUDA kernels of adapter ops: a row's bits are the
// same alone, in a longer segment and beside other segments.

#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/kernels/cuda/emulated_backend.h"
#include "tests/kernels/delta_specs.h"
#include "tests/kernels/op_inputs.h"

namespace polyad::test {
namespace {

constexpr int64_t kRows = 21;

// Row `row` of y after the op on rows [begin, end), of a call that has rows [begin, end) alone.
std::vector<double> RowAfter(EmulatedBackend& backend, const DeltaSpec& spec, int64_t begin,
                             int64_t end, int64_t row) {
  const DeltaWidths widths = WidthsOf(spec);
  DeltaTensors tensors(false);
  PackShare share;
  const std::unique_ptr<PackedDelta> op = *backend.PackDelta(spec.make(tensors), share);
  const std::vector<float> all_x = RandomValues(kRows * widths.in, 5);
  const std::vector<float> all_y = RandomValues(kRows * widths.out, 6);
  ActivationBuffer x(backend, end - begin, widths.in,
                     {all_x.begin() + begin * widths.in, all_x.begin() + end * widths.in});
  FloatBuffer y(end - begin, widths.out,
                {all_y.begin() + begin * widths.out, all_y.begin() + end * widths.out});
  const DeltaSegment segments[] = {{0, end - begin, 0, op.get()}};
  backend.Apply(segments, x.rows(), y.view());
  const std::vector<double> values = y.Values();
  const auto from = values.begin() + (row - begin) * widths.out;
  return {from, from + widths.out};
}

TEST(KernelInvarianceTest, ARowsBitsDependOnTheRowAlone) {
  for (const ComputeMode mode : {ComputeMode::kAuto, ComputeMode::kF32}) {
    EmulatedBackend backend(mode, {});
    for (const DeltaSpec& spec : DeltaSpecs()) {
      if (spec.stage != DeltaStage::kApply) continue;
      const std::vector<double> together = RowAfter(backend, spec, 0, kRows, 13);
      EXPECT_EQ(RowAfter(backend, spec, 13, 14, 13), together) << spec.name << " alone";
      EXPECT_EQ(RowAfter(backend, spec, 10, 15, 13), together) << spec.name << " among few";
    }
    EXPECT_EQ(backend.fault(), "");
    EXPECT_GT(backend.num_launches(), 0);
  }
}

}  // namespace
}  // namespace polyad::test
