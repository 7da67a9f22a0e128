#pragma once

// What the blocks of a launch do: one item each, made on the host once a step. A segment is one
// adapter's rows; its items are tiles of those rows by tiles of its own width, so that segments of
// any rank and length share a launch and none is padded to another's size. Segments whose outputs
// overlap go to different waves, launched in order, since each adds to what it finds. Pure.

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

namespace polyad::cuda {

struct WorkItem {
  int32_t segment = 0;
  int32_t row = 0;   // first row, counted over all rows of the call
  int32_t tile = 0;  // of the segment's width
};

// The outputs of a segment.
struct OutputArea {
  int64_t row_begin = 0;
  int64_t row_end = 0;
  int64_t col_begin = 0;
  int64_t col_end = 0;
};

// For each area a wave: later than those of all areas before it that it overlaps. From 0.
std::vector<int> WavesOf(std::span<const OutputArea> areas);

// Appends an item for each tile of `rows_per_item` rows and each of `num_tiles` tiles.
void AddItems(int32_t segment, const OutputArea& rows, int64_t rows_per_item, int64_t num_tiles,
              std::vector<WorkItem>& items);

// The items of each launch, in order: those of a wave. A segment has row_begin, row_end and
// y_column; width(segment) says how many outputs it has, tiles(segment) how many tiles of them.
template <typename Segment, typename Width, typename Tiles>
std::vector<std::vector<WorkItem>> ItemsByWave(std::span<const Segment> segments,
                                               int64_t rows_per_item, Width width, Tiles tiles) {
  std::vector<OutputArea> areas;
  for (const Segment& s : segments) {
    areas.push_back({s.row_begin, s.row_end, s.y_column, s.y_column + width(s)});
  }
  const std::vector<int> waves = WavesOf(areas);
  std::vector<std::vector<WorkItem>> launches;
  for (size_t i = 0; i < segments.size(); ++i) {
    const auto wave = static_cast<size_t>(waves[i]);
    launches.resize(std::max(launches.size(), wave + 1));
    AddItems(static_cast<int32_t>(i), areas[i], rows_per_item, tiles(segments[i]), launches[wave]);
  }
  return launches;
}

}  // namespace polyad::cuda
