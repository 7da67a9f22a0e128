// The low-rank kernels beyond the shared table: ranks from 1 to 512 and segments of any length in
// one launch, and the promise that a row's bits depend on nothing but its row and its adapter.
// covers: kernels/cuda/low_rank_plan.cc

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cuda/low_rank_plan.h"
#include "kernels/reference/reference_backend.h"
#include "tests/kernels/cuda/emulated_backend.h"
#include "tests/kernels/op_inputs.h"
#include "tests/kernels/simt/schedules.h"
#include "tests/kernels/stored_weight.h"

namespace polyad::test {
namespace {

constexpr int64_t kIn = 136;
constexpr int64_t kOut = 86;

struct Adapter {
  Adapter(int64_t rank, uint32_t seed)
      : a(MakeWeight(DType::kBF16, rank, kIn, seed)),
        b(MakeWeight(DType::kBF16, kOut, rank, seed + 1)) {}
  LowRank op() const { return {a.view(), b.view(), 0.5f}; }

  StoredWeight a;
  StoredWeight b;
};

struct Rows {
  int64_t adapter;
  int64_t begin;
  int64_t end;
};

// y after the deltas of `rows`, of inputs that depend on the row's number alone.
std::vector<double> Apply(Backend& backend, const std::vector<Adapter>& adapters,
                          const std::vector<Rows>& rows, int64_t first, int64_t num_rows) {
  const std::vector<float> all = RandomValues(400 * kIn, 7);
  const auto begin = all.begin() + first * kIn;
  ActivationBuffer x(backend, num_rows, kIn, {begin, begin + num_rows * kIn});
  FloatBuffer y(num_rows, kOut + 2);
  PackShare share;
  std::vector<std::unique_ptr<PackedDelta>> packed;
  std::vector<DeltaSegment> segments;
  for (const Adapter& adapter : adapters) {
    packed.push_back(*backend.PackDelta(adapter.op(), share));
  }
  for (const Rows& run : rows) {
    segments.push_back(
        {run.begin - first, run.end - first, 1, packed[static_cast<size_t>(run.adapter)].get()});
  }
  backend.Apply(segments, x.rows(), y.view());
  return y.Values();
}

const std::vector<Adapter>& Adapters() {
  static const std::vector<Adapter> adapters = [] {
    std::vector<Adapter> made;
    uint32_t seed = 30;
    for (int64_t rank : {1, 8, 15, 16, 17, 64, 100, 512}) made.emplace_back(rank, seed += 2);
    return made;
  }();
  return adapters;
}

class LowRankKernelTest : public testing::TestWithParam<simt::EmulatorOptions> {};
INSTANTIATE_TEST_SUITE_P(All, LowRankKernelTest, testing::ValuesIn(simt::Schedules()),
                         simt::NameOfSchedule);

TEST_P(LowRankKernelTest, AnyMixOfRanksAndLengthsSharesALaunch) {
  const std::vector<Rows> rows = {{7, 0, 1},   {0, 1, 10},   {3, 10, 18},   {5, 18, 85},
                                  {1, 85, 86}, {6, 86, 100}, {2, 101, 110}, {4, 110, 119}};
  for (ComputeMode mode : {ComputeMode::kAuto, ComputeMode::kF32}) {
    EmulatedBackend backend(mode, GetParam());
    ref::ReferenceBackend reference(mode);
    const std::vector<double> got = Apply(backend, Adapters(), rows, 0, 119);
    const std::vector<double> want = Apply(reference, Adapters(), rows, 0, 119);
    ASSERT_EQ(backend.fault(), "");
    // One copies the rows, which are not whole tiles; then few and many rows shrink, and expand.
    EXPECT_EQ(backend.num_launches(), mode == ComputeMode::kAuto ? 1 + 2 + 2 : 1 + 1 + 1);
    double error = 0;
    double norm = 0;
    for (size_t i = 0; i < want.size(); ++i) {
      error += (got[i] - want[i]) * (got[i] - want[i]);
      norm += want[i] * want[i];
    }
    // In bf16 the middle is rounded once: half a unit at most, a third of one on average.
    EXPECT_LE(std::sqrt(error / norm), mode == ComputeMode::kAuto ? kEps16 : 8 * kEps32);
  }
}

TEST(LowRankInvarianceTest, ARowsBitsDoNotDependOnItsSegmentOrItsBatch) {
  for (ComputeMode mode : {ComputeMode::kAuto, ComputeMode::kF32}) {
    EmulatedBackend backend(mode, {});
    for (int64_t adapter : {2, 6}) {
      const auto together = Apply(backend, Adapters(), {{adapter, 0, 70}}, 0, 70);
      for (int64_t row : {0, 5, 63, 69}) {
        const auto alone = Apply(backend, Adapters(), {{adapter, row, row + 1}}, row, 1);
        const auto beside =
            Apply(backend, Adapters(), {{5, row - row % 3, row}, {adapter, row, row + 2}},
                  row - row % 3, row % 3 + 2);
        for (size_t o = 0; o < kOut + 2; ++o) {
          const double want = together[static_cast<size_t>(row) * (kOut + 2) + o];
          EXPECT_EQ(alone[o], want) << "row " << row << " output " << o;
          EXPECT_EQ(beside[static_cast<size_t>(row % 3) * (kOut + 2) + o], want);
        }
      }
    }
    EXPECT_EQ(backend.fault(), "");
  }
}

TEST(LowRankInvarianceTest, OverlappingSegmentsAddInTheirOrder) {
  EmulatedBackend backend(ComputeMode::kAuto, {.order = simt::Order::kRandom, .os_threads = 2});
  const auto both = Apply(backend, Adapters(), {{1, 0, 3}, {4, 1, 20}, {5, 2, 4}}, 0, 20);
  const auto again = Apply(backend, Adapters(), {{1, 0, 3}, {4, 1, 20}, {5, 2, 4}}, 0, 20);
  EXPECT_EQ(both, again);
  EXPECT_EQ(backend.fault(), "");
}

cuda::LowRankSegment Segment(int begin, int end, int rank) {
  cuda::LowRankSegment segment;
  segment.row_begin = begin;
  segment.row_end = end;
  segment.in = 64;
  segment.rank = rank;
  segment.out = 100;
  return segment;
}

TEST(LowRankPlanTest, TilesArePaidForByTheSegmentThatHasThem) {
  const cuda::LowRankSegment segments[] = {Segment(0, 1, 8), Segment(1, 2, 512),
                                           Segment(2, 132, 16), Segment(132, 140, 0)};
  const cuda::LowRankPlan plan = cuda::PlanLowRank(segments, /*exact=*/false);
  ASSERT_EQ(plan.launches.size(), 4u);
  EXPECT_EQ(plan.launches[0].num_items, 1 + 32) << "tiles of 16 ranks of the short segments";
  EXPECT_EQ(plan.launches[1].num_items, 3) << "three times 64 rows";
  EXPECT_EQ(plan.launches[2].num_items, 2 + 2) << "tiles of 64 outputs";
  EXPECT_EQ(plan.launches[3].num_items, 3 * 2);
  EXPECT_EQ(plan.middle_elements, 16 + 512 + 130 * 16);
  EXPECT_EQ(plan.segments[2].middle, 16 + 512);
}

TEST(LowRankPlanTest, OverlappingOutputsGoToLaterLaunches) {
  const cuda::LowRankSegment segments[] = {Segment(0, 4, 8), Segment(3, 5, 8), Segment(4, 6, 8)};
  const cuda::LowRankPlan plan = cuda::PlanLowRank(segments, /*exact=*/false);
  ASSERT_EQ(plan.launches.size(), 4u) << "one to shrink, three waves to expand";
  for (size_t wave = 0; wave < 3; ++wave) {
    EXPECT_EQ(plan.items[static_cast<size_t>(plan.launches[wave + 1].first_item)].segment,
              static_cast<int>(wave));
  }
}

TEST(LowRankPlanTest, NothingToDoIsNoLaunch) {
  EXPECT_TRUE(cuda::PlanLowRank({}, /*exact=*/false).launches.empty());
}

}  // namespace
}  // namespace polyad::test
