// What is recorded runs later with the arguments it had then; shapes and differences are found.

#include "kernels/simt/recording.h"

#include <vector>

#include "gtest/gtest.h"
#include "kernels/simt/simt.h"

namespace polyad::simt {
namespace {

struct Pair {
  char tag;
  double value;  // behind padding
};

void Fill(int64_t* to, char tag, Pair pair, int64_t more) {
  if (ThreadIndex() == 0)
    to[BlockIndex()] = tag + pair.tag + static_cast<int64_t>(pair.value) + more;
}

void Negate(int64_t* to) {
  if (ThreadIndex() == 0) to[BlockIndex()] = -to[BlockIndex()];
}

class RecordingTest : public testing::Test {
 protected:
  void Record(Recording& to, int64_t more, int64_t blocks = 2) {
    stream_.RecordInto(&to);
    Pair pair = {};
    pair.tag = 2;
    pair.value = 30.0;
    Launch({blocks, 32}, &stream_, Fill, numbers_.data(), char{1}, pair, more);
    Launch({blocks, 32}, &stream_, Negate, numbers_.data());
    stream_.RecordInto(nullptr);
  }
  void RunAll(const Recording& recording) {
    for (const Recording::Item& item : recording.items()) stream_.Run(recording, item);
    EXPECT_EQ(stream_.fault(), "");
  }

  EmulatedStream stream_{{}};
  std::vector<int64_t> numbers_ = {7, 7, 7};
};

TEST_F(RecordingTest, RunsLaterAndAgainWithTheArgumentsItHad) {
  Recording recording;
  Record(recording, 400);
  EXPECT_EQ(numbers_, (std::vector<int64_t>{7, 7, 7})) << "nothing ran yet";
  EXPECT_EQ(recording.items().size(), 2u);
  RunAll(recording);
  EXPECT_EQ(numbers_, (std::vector<int64_t>{-433, -433, 7}));
  const Recording copy = recording;
  recording.Clear();
  EXPECT_TRUE(recording.empty());
  numbers_[0] = 0;
  RunAll(copy);
  EXPECT_EQ(numbers_[0], -433);
}

TEST_F(RecordingTest, DifferencesAreThoseOfSizesArgumentsAndMemory) {
  Recording first;
  Recording second;
  Record(first, 400);
  Record(second, 400);
  first.AddClear(numbers_.data(), 8);
  second.AddClear(numbers_.data(), 8);
  EXPECT_EQ(first.ShapeHash(), second.ShapeHash());
  ASSERT_TRUE(first.SameShape(second));
  EXPECT_TRUE(first.DifferencesFrom(second).empty());
  Recording other;
  Record(other, 401);
  other.AddClear(numbers_.data() + 1, 8);
  ASSERT_TRUE(other.SameShape(first));
  EXPECT_EQ(other.DifferencesFrom(first), (std::vector<int32_t>{0, 2}));
  Recording larger;
  Record(larger, 400, 3);
  larger.AddClear(numbers_.data(), 8);
  EXPECT_EQ(larger.DifferencesFrom(first), (std::vector<int32_t>{0, 1}));
  for (const int32_t i : other.DifferencesFrom(first)) first.TakeItem(i, other);
  EXPECT_TRUE(other.DifferencesFrom(first).empty());
}

TEST_F(RecordingTest, ShapesAreKernelsAndBytesInTheirOrder) {
  Recording one;
  Record(one, 1);
  Recording longer = one;
  longer.AddClear(numbers_.data(), 8);
  Recording wider = one;
  wider.AddClear(numbers_.data(), 16);
  Recording turned;
  stream_.RecordInto(&turned);
  Launch({2, 32}, &stream_, Negate, numbers_.data());
  stream_.RecordInto(nullptr);
  for (const Recording* other : {&longer, &wider, &turned}) {
    EXPECT_FALSE(one.SameShape(*other));
    EXPECT_NE(one.ShapeHash(), other->ShapeHash());
  }
  EXPECT_FALSE(longer.SameShape(wider));
  EXPECT_NE(longer.ShapeHash(), wider.ShapeHash());
}

}  // namespace
}  // namespace polyad::simt
