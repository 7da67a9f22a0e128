#include "kernels/cuda/kronecker_plan.h"

#include "kernels/cuda/device_rows.h"

namespace polyad::cuda {

std::vector<std::vector<WorkItem>> PlanKronecker(std::span<const KroneckerSegment> segments) {
  std::vector<OutputArea> areas;
  for (const KroneckerSegment& s : segments) {
    areas.push_back(
        {s.row_begin, s.row_end, s.y_column, s.y_column + static_cast<int64_t>(s.l) * s.k});
  }
  const std::vector<int> waves = WavesOf(areas);
  std::vector<std::vector<WorkItem>> launches;
  for (size_t i = 0; i < segments.size(); ++i) {
    const auto wave = static_cast<size_t>(waves[i]);
    if (launches.size() <= wave) launches.resize(wave + 1);
    const int64_t tiles =
        DivideUp(segments[i].l, kKroneckerTile) * DivideUp(segments[i].k, kKroneckerTile);
    AddItems(static_cast<int32_t>(i), areas[i], 1, tiles, launches[wave]);
  }
  return launches;
}

}  // namespace polyad::cuda
