#include "kernels/cuda/sparse_plan.h"

#include "kernels/cuda/device_rows.h"

namespace polyad::cuda {

std::vector<std::vector<WorkItem>> PlanSparse(std::span<const SparseSegment> segments) {
  return ItemsByWave(
      segments, kSparseRows, [](const SparseSegment& s) { return int64_t{s.out}; },
      [](const SparseSegment& s) { return DivideUp(s.num_outputs, kSparseOutputs); });
}

}  // namespace polyad::cuda
