#include "engine/spec/rope_tables.h"

#include <cmath>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace polyad {
namespace {

using ::testing::ElementsAre;

RopeSpec Dynamic() {
  RopeSpec rope;
  rope.rotary_dim = 4;
  rope.scaling = RopeScaling::kDynamic;
  rope.factor = 4.0;
  rope.original_max_position = 8;
  return rope;
}

TEST(RopeTablesTest, AChoiceForEachReachAndNoneBeyondWhatIsServed) {
  EXPECT_THAT(RopeTables(Dynamic(), 32, 32).reaches(), ElementsAre(8, 16, 32));
  EXPECT_THAT(RopeTables(Dynamic(), 32, 9).reaches(), ElementsAre(8, 16));
  EXPECT_THAT(RopeTables(Dynamic(), 32, 8).reaches(), ElementsAre(8));
}

TEST(RopeTablesTest, HowMuchIsServedChangesNoAngle) {
  const RopeTables whole(Dynamic(), 32, 32);
  const RopeTables part(Dynamic(), 32, 9);
  for (int64_t choice = 0; choice < 2; ++choice) {
    for (int64_t i = 0; i < 2 * (choice == 0 ? 8 : 9); ++i) {
      EXPECT_EQ(part.view(choice).cos[i], whole.view(choice).cos[i]);
      EXPECT_EQ(part.view(choice).sin[i], whole.view(choice).sin[i]);
    }
  }
  EXPECT_NE(whole.view(0).sin[3], whole.view(2).sin[3]);
  EXPECT_EQ(part.bytes(), (8 + 9) * 2 * 2 * static_cast<int64_t>(sizeof(float)));
}

TEST(RopeTablesTest, TheAttentionFactorMultipliesBoth) {
  RopeSpec rope;
  rope.rotary_dim = 2;
  rope.attention_factor = 1.5;
  const RopeTables tables(rope, 4, 4);
  EXPECT_EQ(tables.view(0).cos[0], 1.5f);
  EXPECT_NEAR(tables.view(0).cos[3], 1.5 * std::cos(3.0), 1e-6);
  EXPECT_NEAR(tables.view(0).sin[3], 1.5 * std::sin(3.0), 1e-6);
}

TEST(RopeTablesTest, LearnedPositionsTurnNothing) {
  const RopeTables tables(RopeSpec{}, 64, 64);
  EXPECT_EQ(tables.view(0).rotary_dim, 0);
  EXPECT_EQ(tables.bytes(), 0);
}

}  // namespace
}  // namespace polyad
