#include "kernels/cuda/work_items.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace polyad::cuda {
namespace {

TEST(WorkItemsTest, AreasThatOverlapGoToLaterWaves) {
  const OutputArea areas[] = {{0, 4, 0, 10},  {4, 8, 0, 10}, {3, 5, 5, 6},
                              {0, 4, 10, 20}, {3, 4, 0, 20}, {0, 0, 0, 10}};
  EXPECT_THAT(WavesOf(areas), testing::ElementsAre(0, 0, 1, 0, 2, 0));
}

TEST(WorkItemsTest, ItemsCoverEveryRowAndTileOnce) {
  std::vector<WorkItem> items;
  AddItems(3, {5, 22, 0, 0}, 8, 2, items);
  ASSERT_EQ(items.size(), 6u);
  for (size_t i = 0; i < items.size(); ++i) {
    EXPECT_EQ(items[i].segment, 3);
    EXPECT_EQ(items[i].row, 5 + static_cast<int>(i / 2) * 8);
    EXPECT_EQ(items[i].tile, static_cast<int>(i % 2));
  }
}

}  // namespace
}  // namespace polyad::cuda
