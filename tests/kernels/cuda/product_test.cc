// The product kernels beyond the shared table: every way of storing a weight, segments of any
// length, and the promise that a row's bits depend on nothing but its row.
// covers: kernels/cuda/product_plan.cc kernels/cuda/weight_tiles.cc

#include <cmath>
#include <string>

#include "gtest/gtest.h"
#include "kernels/cuda/product_plan.h"
#include "kernels/reference/reference_backend.h"
#include "tests/kernels/cuda/emulated_backend.h"
#include "tests/kernels/cuda/weight_products.h"
#include "tests/kernels/op_inputs.h"
#include "tests/kernels/simt/schedules.h"

namespace polyad::test {
namespace {

constexpr int64_t kIn = 192;
constexpr int64_t kOut = 70;

class ProductKernelTest : public testing::TestWithParam<simt::EmulatorOptions> {};
INSTANTIATE_TEST_SUITE_P(All, ProductKernelTest, testing::ValuesIn(simt::Schedules()),
                         simt::NameOfSchedule);

// Where codes cannot stay codes their numbers are rounded to bf16, once.
double BoundOf(const std::string& kind, double tolerance) {
  const bool rounds = kind == "narrow" || kind == "scattered";
  return rounds ? tolerance * kEps16 / (8 * kEps32) : tolerance;
}

TEST_P(ProductKernelTest, EveryFormatGivesTheProductOfItsNumbers) {
  EmulatedBackend backend(ComputeMode::kAuto, GetParam());
  ref::ReferenceBackend reference(ComputeMode::kAuto);
  for (const std::string& kind : CodedKinds()) {
    const StoredWeight weight = MakeCoded(kind, kOut, kIn);
    for (const int64_t rows : {3, 67}) {
      const WeightProduct got = ProductOf(backend, weight, rows);
      const WeightProduct want = ProductOf(reference, weight, rows);
      ASSERT_EQ(backend.fault(), "") << kind;
      for (size_t i = 0; i < want.values.size(); ++i) {
        ASSERT_LE(std::abs(got.values[i] - want.values[i]), BoundOf(kind, want.tolerance[i]))
            << kind << ", " << rows << " rows, element " << i;
      }
    }
  }
}

TEST(ProductInvarianceTest, ARowsBitsAreTheSameAloneAndAmongMany) {
  std::vector<StoredWeight> weights = {MakeWeight(DType::kBF16, kOut, kIn, 3),
                                       MakeWeight(DType::kQ4_1, kOut, kIn, 3)};
  for (const std::string& kind : CodedKinds()) weights.push_back(MakeCoded(kind, kOut, kIn));
  for (const ComputeMode mode : {ComputeMode::kAuto, ComputeMode::kF32}) {
    EmulatedBackend backend(mode, {});
    for (const StoredWeight& weight : weights) {
      const WeightProduct together = ProductOf(backend, weight, 70);
      for (const int64_t row : {0, 9, 69}) {
        const WeightProduct alone = ProductOf(backend, weight, 1, row);
        for (size_t o = 0; o < kOut; ++o) {
          EXPECT_EQ(alone.values[o], together.values[static_cast<size_t>(row * kOut) + o])
              << "row " << row << " output " << o;
        }
      }
    }
    EXPECT_EQ(backend.fault(), "");
  }
}

TEST(EmbedKernelTest, CodesOfEveryKindGiveTheirNumbers) {
  EmulatedBackend backend(ComputeMode::kAuto, {});
  for (const std::string& kind : CodedKinds()) {
    const StoredWeight weight = MakeCoded(kind, kOut, kIn);
    const TensorView view = weight.view();
    const std::unique_ptr<PackedMatrix> packed = *backend.PackMatrix(std::span(&view, 1));
    const std::vector<int32_t> ids = {0, 69, 17};
    FloatBuffer out(3, kIn);
    backend.Embed(*packed, ids, out.view());
    for (size_t i = 0; i < out.values.size(); ++i) {
      const size_t row = static_cast<size_t>(ids[i / kIn]);
      const float want = weight.values[row * kIn + i % kIn];
      const double unit = BoundOf(kind, 8 * kEps32);  // a level is in two bf16 numbers
      EXPECT_LE(std::abs(out.values[i] - want), unit * (std::abs(want) + 1.0f)) << kind;
    }
  }
  EXPECT_EQ(backend.fault(), "");
}

cuda::ProductSegment Segment(int begin, int end, cuda::WeightFormat format) {
  cuda::ProductSegment segment;
  segment.row_begin = begin;
  segment.row_end = end;
  segment.out = 100;
  segment.weight.format = format;
  segment.sink = cuda::ProductSink::kAdd;
  return segment;
}

TEST(ProductPlanTest, AFormatAndFormIsALaunchAndOverlappingOutputsWait) {
  const cuda::ProductSegment segments[] = {
      Segment(0, 8, cuda::WeightFormat::kBf16), Segment(8, 140, cuda::WeightFormat::kBf16),
      Segment(140, 141, cuda::WeightFormat::kInteger4), Segment(3, 4, cuda::WeightFormat::kBf16)};
  const cuda::ProductPlan plan = cuda::PlanProducts(segments, /*exact=*/false);
  ASSERT_EQ(plan.launches.size(), 4u);
  EXPECT_EQ(plan.launches[0].num_items, 7) << "tiles of 16 outputs";
  EXPECT_EQ(plan.launches[1].format, cuda::WeightFormat::kInteger4);
  EXPECT_EQ(plan.launches[2].num_items, 3 * 2) << "three times 64 rows, tiles of 64 outputs";
  EXPECT_EQ(plan.items[static_cast<size_t>(plan.launches[3].first_item)].segment, 3);
}

TEST(ProductPlanTest, APartOfTheOutputsHasTheTilesItLiesIn) {
  cuda::ProductSegment segment = Segment(0, 1, cuda::WeightFormat::kBf16);
  segment.first_out = 37;
  segment.out = 12;
  EXPECT_EQ(cuda::PlanProducts(std::span(&segment, 1), false).items.size(), 2u) << "of 32 and 48";
  EXPECT_TRUE(cuda::PlanProducts({}, false).launches.empty());
}

}  // namespace
}  // namespace polyad::test
