#include "engine/runtime/hidden_pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace polyad {
namespace {

using ::testing::ElementsAre;
using ::testing::FloatNear;

FloatRows RowsOf(std::vector<float>& values, int64_t cols) {
  const auto rows = static_cast<int64_t>(values.size()) / cols;
  return {values.data(), rows, cols, cols};
}

EmbeddingParams Plain(int32_t dimensions = 0) {
  return {EmbeddingParams::Pooling::kMean, false, dimensions};
}

TEST(HiddenPool, IsTheMeanOfTheRowsHoweverTheyCome) {
  std::vector<float> all = {1, 2, 3, 5, 7, 11};
  HiddenPool whole;
  whole.Add(RowsOf(all, 2));
  HiddenPool pieces;
  for (size_t i = 0; i < all.size(); i += 2) {
    std::vector<float> row = {all[i], all[i + 1]};
    pieces.Add(RowsOf(row, 2));
  }
  pieces.Add({});
  EXPECT_EQ(whole.num_rows(), 3);
  EXPECT_EQ(pieces.num_rows(), 3);
  EXPECT_EQ(*whole.Finish(Plain()), *pieces.Finish(Plain()));
  EXPECT_THAT(*whole.Finish(Plain()), ElementsAre(FloatNear(11.0f / 3, 1e-6f), 6));
}

TEST(HiddenPool, NormalisesWhatIsKept) {
  std::vector<float> row = {3, 4, 12};
  HiddenPool pool;
  pool.Add(RowsOf(row, 3));
  EmbeddingParams params;
  EXPECT_THAT(*pool.Finish(params),
              ElementsAre(FloatNear(3.0f / 13, 1e-7f), FloatNear(4.0f / 13, 1e-7f),
                          FloatNear(12.0f / 13, 1e-7f)));
  params.dimensions = 2;
  EXPECT_THAT(*pool.Finish(params), ElementsAre(FloatNear(0.6f, 1e-7f), FloatNear(0.8f, 1e-7f)));
  EXPECT_THAT(*pool.Finish(Plain(1)), ElementsAre(3));
}

TEST(HiddenPool, NothingIsNoDirectionAndNoFault) {
  std::vector<float> row = {0, 0};
  HiddenPool pool;
  pool.Add(RowsOf(row, 2));
  EXPECT_THAT(*pool.Finish({}), ElementsAre(0, 0));
}

TEST(HiddenPool, AValueThatIsNotFiniteIsAnError) {
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    std::vector<float> row = {1, bad};
    HiddenPool pool;
    pool.Add(RowsOf(row, 2));
    EXPECT_TRUE(absl::IsInternal(pool.Finish({}).status()));
    EXPECT_TRUE(pool.Finish(Plain(1)).ok()) << "what is not kept does not count";
  }
}

}  // namespace
}  // namespace polyad
