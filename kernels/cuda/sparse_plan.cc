#include "kernels/cuda/sparse_plan.h"

#include "kernels/cuda/device_rows.h"

namespace polyad::cuda {

std::vector<std::vector<WorkItem>> PlanSparse(std::span<const SparseSegment> segments) {
  std::vector<OutputArea> areas;
  for (const SparseSegment& s : segments) {
    areas.push_back({s.row_begin, s.row_end, s.y_column, s.y_column + s.out});
  }
  const std::vector<int> waves = WavesOf(areas);
  std::vector<std::vector<WorkItem>> launches;
  for (size_t i = 0; i < segments.size(); ++i) {
    const auto wave = static_cast<size_t>(waves[i]);
    if (launches.size() <= wave) launches.resize(wave + 1);
    AddItems(static_cast<int32_t>(i), areas[i], kSparseRows,
             DivideUp(segments[i].num_outputs, kSparseOutputs), launches[wave]);
  }
  return launches;
}

}  // namespace polyad::cuda
