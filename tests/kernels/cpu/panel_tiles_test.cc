// Tiles against the layout's definition, one number at a time.
#include "kernels/cpu/panel_tiles.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "kernels/cpu/gemm_kernels.h"
#include "kernels/cpu/number_format.h"

namespace polyad::cpu {
namespace {

// Number k of column c of a panel of `columns`, of numbers so many of which make 4 bytes.
template <typename Element>
Element NumberAt(const char* panel, int64_t in, int64_t columns, int64_t c, int64_t k) {
  constexpr int64_t kPerUnit = 4 / sizeof(Element);
  const int64_t block = k / kDepthBlock * kDepthBlock;
  const int64_t depth = std::min(kDepthBlock, in - block);
  const int64_t units = (depth + kPerUnit - 1) / kPerUnit;
  const int64_t first = c / kTileColumns * kTileColumns;
  const int64_t width = std::min(kTileColumns, columns - first);
  const int64_t unit = (block + kPerUnit - 1) / kPerUnit * columns + units * first +
                       (k - block) / kPerUnit * width + (c - first);
  Element number;
  std::memcpy(&number, panel + unit * 4 + k % kPerUnit * static_cast<int64_t>(sizeof(number)),
              sizeof(number));
  return number;
}

std::vector<float> Numbers(int64_t count) {
  std::mt19937 random(static_cast<uint32_t>(count));
  std::normal_distribution<float> normal;
  std::vector<float> numbers(static_cast<size_t>(count));
  for (float& number : numbers) number = normal(random);
  numbers[0] = std::numeric_limits<float>::quiet_NaN();
  numbers.back() = -std::numeric_limits<float>::infinity();
  return numbers;
}

constexpr int64_t kIns[] = {1, 2, 15, 16, 17, 31, 32, 33, 64, 77};
constexpr int64_t kColumns[] = {1, 7, 16, 17, 31, 32};

// Both ways of turning a tile, where the machine has both.
class PanelTilesTest : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    if (GetParam() && !UsesWideLanes()) GTEST_SKIP() << "this machine has no AVX-512";
  }
};
INSTANTIATE_TEST_SUITE_P(Wide, PanelTilesTest, testing::Bool());

TEST_P(PanelTilesTest, EveryNumberLiesWhereKernelsReadIt) {
  for (const int64_t in : kIns) {
    for (const int64_t columns : kColumns) {
      const std::vector<float> rows = Numbers(in * columns);
      std::vector<char> floats(static_cast<size_t>(in * columns * 4));
      std::vector<char> halves(static_cast<size_t>((in + 1) / 2 * columns * 4));
      WriteFloatTiles(rows.data(), in, columns, floats.data(), GetParam());
      WriteBf16Tiles(rows.data(), in, columns, halves.data(), GetParam());
      for (int64_t c = 0; c < columns; ++c) {
        for (int64_t k = 0; k < in; ++k) {
          const float number = rows[static_cast<size_t>(c * in + k)];
          const auto found = NumberAt<float>(floats.data(), in, columns, c, k);
          EXPECT_EQ(std::memcmp(&found, &number, 4), 0) << in << " x " << columns;
          EXPECT_EQ(NumberAt<uint16_t>(halves.data(), in, columns, c, k), ToBf16(number))
              << in << " x " << columns << " at " << k << " of " << c;
        }
      }
    }
  }
}

TEST_P(PanelTilesTest, ScalesBf16NumbersAndFillsTheLastPairWithZero) {
  for (const float scale : {1.0f, 2.0f, 0.3f}) {
    for (const int64_t in : kIns) {
      const int64_t columns = 17;
      std::vector<uint16_t> rows;
      for (const float number : Numbers(in * columns)) rows.push_back(ToBf16(number));
      std::vector<char> panel(static_cast<size_t>((in + 1) / 2 * columns * 4), 'x');
      WriteBf16Tiles(rows.data(), scale, in, columns, panel.data(), GetParam());
      for (int64_t c = 0; c < columns; ++c) {
        for (int64_t k = 0; k < in + in % 2; ++k) {
          const float number = k < in ? FromBf16(rows[static_cast<size_t>(c * in + k)]) : 0.0f;
          EXPECT_EQ(NumberAt<uint16_t>(panel.data(), in + in % 2, columns, c, k),
                    ToBf16(number * scale))
              << in << " at " << k << " of " << c;
        }
      }
    }
  }
}

}  // namespace
}  // namespace polyad::cpu
