#include "kernels/cuda/low_rank_plan.h"

#include <algorithm>

#include "kernels/cuda/device_rows.h"
#include "kernels/cuda/fragment_matrix.h"

namespace polyad::cuda {
namespace {

OutputArea AreaOf(const LowRankSegment& segment) {
  return {segment.row_begin, segment.row_end, segment.y_column, segment.y_column + segment.out};
}

struct Tiling {
  int64_t rows;
  int64_t width;  // of a tile
};

Tiling TilingOf(LowRankStep step) {
  switch (step) {
    case LowRankStep::kShrinkFew:
      return {kFewRows, kShrinkTile};
    case LowRankStep::kShrinkMany:
      return {kManyRows, kShrinkTile};
    case LowRankStep::kExpandFew:
      return {kFewRows, kExpandTile};
    case LowRankStep::kExpandMany:
      return {kManyRows, kExpandTile};
    case LowRankStep::kShrinkExact:
      return {1, kExactShrinkTile};
    case LowRankStep::kExpandExact:
      return {1, kExactTile};
  }
  return {1, 1};
}

bool IsShrink(LowRankStep step) {
  return step == LowRankStep::kShrinkFew || step == LowRankStep::kShrinkMany ||
         step == LowRankStep::kShrinkExact;
}

class Planner {
 public:
  Planner(std::span<const LowRankSegment> segments, bool exact) : exact_(exact) {
    std::vector<OutputArea> areas;
    for (const LowRankSegment& segment : segments) {
      plan_.segments.push_back(segment);
      plan_.segments.back().middle = plan_.middle_elements;
      plan_.middle_elements += (segment.row_end - segment.row_begin) * RoundUp(segment.rank, kTile);
      areas.push_back(AreaOf(segment));
    }
    waves_ = WavesOf(areas);
  }

  LowRankPlan Make() {
    const int last = waves_.empty() ? -1 : *std::max_element(waves_.begin(), waves_.end());
    Add(exact_ ? LowRankStep::kShrinkExact : LowRankStep::kShrinkFew, -1);
    if (!exact_) Add(LowRankStep::kShrinkMany, -1);
    for (int wave = 0; wave <= last; ++wave) {
      Add(exact_ ? LowRankStep::kExpandExact : LowRankStep::kExpandFew, wave);
      if (!exact_) Add(LowRankStep::kExpandMany, wave);
    }
    return std::move(plan_);
  }

 private:
  bool Takes(LowRankStep step, const LowRankSegment& segment) const {
    if (segment.rank == 0) return false;
    const bool many = segment.row_end - segment.row_begin > kFewRows;
    return exact_ || many == (step == LowRankStep::kShrinkMany || step == LowRankStep::kExpandMany);
  }

  // The items of one launch; wave -1: of all segments.
  void Add(LowRankStep step, int wave) {
    const auto first = static_cast<int64_t>(plan_.items.size());
    const Tiling tiling = TilingOf(step);
    for (size_t i = 0; i < plan_.segments.size(); ++i) {
      const LowRankSegment& segment = plan_.segments[i];
      if (!Takes(step, segment) || (wave >= 0 && waves_[i] != wave)) continue;
      const int64_t width = IsShrink(step) ? segment.rank : segment.out;
      AddItems(static_cast<int32_t>(i), AreaOf(segment), tiling.rows, DivideUp(width, tiling.width),
               plan_.items);
    }
    const int64_t count = static_cast<int64_t>(plan_.items.size()) - first;
    if (count > 0) plan_.launches.push_back({step, first, count});
  }

  const bool exact_;
  LowRankPlan plan_;
  std::vector<int> waves_;
};

}  // namespace

LowRankPlan PlanLowRank(std::span<const LowRankSegment> segments, bool exact) {
  return Planner(segments, exact).Make();
}

}  // namespace polyad::cuda
