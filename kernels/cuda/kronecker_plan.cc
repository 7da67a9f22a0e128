#include "kernels/cuda/kronecker_plan.h"

#include "kernels/cuda/device_rows.h"

namespace polyad::cuda {

std::vector<std::vector<WorkItem>> PlanKronecker(std::span<const KroneckerSegment> segments) {
  return ItemsByWave(
      segments, 1, [](const KroneckerSegment& s) { return int64_t{s.l} * s.k; },
      [](const KroneckerSegment& s) {
        return DivideUp(s.l, kKroneckerTile) * DivideUp(s.k, kKroneckerTile);
      });
}

}  // namespace polyad::cuda
