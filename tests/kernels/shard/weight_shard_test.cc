// Which part of a matrix a rank has.

#include "kernels/shard/weight_shard.h"

#include <vector>

#include "gtest/gtest.h"
#include "tests/kernels/cuda/weight_products.h"
#include "tests/kernels/op_inputs.h"
#include "tests/kernels/stored_weight.h"

namespace polyad::test {
namespace {

TEST(SliceTest, PartsAreWholeUnitsAndMakeUpTheWhole) {
  for (const int64_t count : {1, 7, 64, 96, 100}) {
    for (const int64_t unit : {1, 8, 32}) {
      for (const int size : {1, 2, 3, 8}) {
        int64_t end = 0;
        for (int rank = 0; rank < size; ++rank) {
          const Slice slice = SliceOf(count, unit, rank, size);
          EXPECT_EQ(slice.begin, end);
          EXPECT_TRUE(slice.begin % unit == 0 || slice.begin == count);
          EXPECT_LE(slice.size(), SliceOf(count, unit, 0, size).size());
          end = slice.end;
        }
        EXPECT_EQ(end, count);
      }
    }
  }
}

// Row by row, what a matrix of numbers or codes stands for.
std::vector<float> NumbersOf(const TensorView& weight) {
  std::vector<float> numbers(static_cast<size_t>(weight.rows * weight.cols));
  for (int64_t row = 0; row < weight.rows; ++row) {
    float* to = numbers.data() + row * weight.cols;
    if (weight.dtype == DType::kGrouped) {
      DequantizeRow(*weight.grouped, row, to);
      continue;
    }
    for (int64_t col = 0; col < weight.cols; ++col) {
      const int64_t at = row * weight.cols + col;
      to[col] = weight.dtype == DType::kF32
                    ? static_cast<const float*>(weight.data)[at]
                    : FromBf16Bits(static_cast<const uint16_t*>(weight.data)[at]);
    }
  }
  return numbers;
}

void ExpectParts(const StoredWeight& weight, Slice outputs, Slice inputs) {
  const absl::StatusOr<WeightShard> rows =
      WeightShard::Of(weight.view(), ShardAxis::kOutputs, outputs);
  ASSERT_TRUE(rows.ok()) << rows.status();
  const absl::StatusOr<WeightShard> part =
      WeightShard::Of(rows->view(), ShardAxis::kInputs, inputs);
  ASSERT_TRUE(part.ok()) << part.status();
  const std::vector<float> numbers = NumbersOf(part->view());
  ASSERT_EQ(part->view().rows, outputs.size());
  ASSERT_EQ(part->view().cols, inputs.size());
  for (int64_t row = 0; row < outputs.size(); ++row) {
    for (int64_t col = 0; col < inputs.size(); ++col) {
      ASSERT_EQ(numbers[static_cast<size_t>(row * inputs.size() + col)],
                weight.values[static_cast<size_t>((outputs.begin + row) * weight.cols +
                                                  inputs.begin + col)]);
    }
  }
}

TEST(WeightShardTest, APartIsTheNumbersOfTheWhole) {
  ExpectParts(MakeWeight(DType::kBF16, 10, 96, 1), {3, 10}, {5, 70});
  ExpectParts(MakeWeight(DType::kF32, 10, 96, 1), {0, 1}, {95, 96});
  ExpectParts(MakeCoded("minima", 10, 96), {2, 7}, {32, 96});
  ExpectParts(MakeCoded("groups", 10, 120), {2, 7}, {48, 120});
  ExpectParts(MakeCoded("levels", 10, 192), {9, 10}, {64, 128});
  ExpectParts(MakeCoded("float8", 10, 96), {2, 7}, {0, 96});
  ExpectParts(MakeCoded("scattered", 10, 96), {2, 7}, {17, 40});
  ExpectParts(MakeWeight(DType::kGrouped, 10, 512, 1), {1, 9}, {256, 512});
}

TEST(WeightShardTest, NoGroupIsCut) {
  const StoredWeight weights[] = {MakeCoded("minima", 10, 96), MakeWeight(DType::kQ8_0, 10, 96, 1)};
  for (const StoredWeight& weight : weights) {
    const absl::StatusOr<WeightShard> cut =
        WeightShard::Of(weight.view(), ShardAxis::kInputs, {32, 80});
    EXPECT_EQ(cut.status().message(), "a shard of inputs [32, 80): expected whole groups of 32");
  }
}

TEST(WeightShardTest, RowsAreScaledInFp32) {
  const StoredWeight weight = MakeWeight(DType::kF16, 3, 20, 1);
  const std::vector<float> factors = {0.3f, -1.0f, 7.0f};
  const absl::StatusOr<WeightShard> scaled = WeightShard::ScaledRows(weight.view(), factors);
  ASSERT_TRUE(scaled.ok()) << scaled.status();
  const std::vector<float> numbers = NumbersOf(scaled->view());
  for (size_t i = 0; i < numbers.size(); ++i) {
    EXPECT_EQ(numbers[i], factors[i / 20] * weight.values[i]);
  }
  EXPECT_FALSE(WeightShard::ScaledRows(weight.view(), {factors.data(), 2}).ok());
}

}  // namespace
}  // namespace polyad::test
