#include "kernels/cuda/work_items.h"

#include <algorithm>

namespace polyad::cuda {
namespace {

bool Overlap(const OutputArea& a, const OutputArea& b) {
  return a.row_begin < b.row_end && b.row_begin < a.row_end && a.col_begin < b.col_end &&
         b.col_begin < a.col_end;
}

}  // namespace

std::vector<int> WavesOf(std::span<const OutputArea> areas) {
  std::vector<int> waves(areas.size(), 0);
  for (size_t i = 0; i < areas.size(); ++i) {
    for (size_t before = 0; before < i; ++before) {
      if (Overlap(areas[before], areas[i])) waves[i] = std::max(waves[i], waves[before] + 1);
    }
  }
  return waves;
}

void AddItems(int32_t segment, const OutputArea& rows, int64_t rows_per_item, int64_t num_tiles,
              std::vector<WorkItem>& items) {
  for (int64_t row = rows.row_begin; row < rows.row_end; row += rows_per_item) {
    for (int64_t tile = 0; tile < num_tiles; ++tile) {
      items.push_back({segment, static_cast<int32_t>(row), static_cast<int32_t>(tile)});
    }
  }
}

}  // namespace polyad::cuda
