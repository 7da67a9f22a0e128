#include "kernels/api/kv_shape.h"

#include <string>

#include "gtest/gtest.h"

namespace polyad {
namespace {

TEST(SettleKvShapeTest, AutoFollowsTheComputeMode) {
  const KvShape shape{2, 3, 64};
  EXPECT_EQ(SettleKvShape(shape, ComputeMode::kF32)->format, KvFormat::kF32);
  EXPECT_EQ(SettleKvShape(shape, ComputeMode::kBF16)->format, KvFormat::kBF16);
  EXPECT_EQ(SettleKvShape(shape, ComputeMode::kAuto)->format, KvFormat::kBF16);
}

TEST(SettleKvShapeTest, F32GoesWithModeF32Alone) {
  for (KvFormat format : {KvFormat::kBF16, KvFormat::kInt8, KvFormat::kInt4}) {
    const KvShape shape{2, 3, 64, format};
    EXPECT_EQ(SettleKvShape(shape, ComputeMode::kAuto)->format, format);
    const absl::Status refused = SettleKvShape(shape, ComputeMode::kF32).status();
    EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(std::string(refused.message()).find(NameOf(format)), std::string::npos);
  }
  EXPECT_FALSE(SettleKvShape({2, 3, 64, KvFormat::kF32}, ComputeMode::kBF16).ok());
}

TEST(SettleKvShapeTest, RefusesSizesOutOfRange) {
  for (const KvShape& shape : {KvShape{0, 1, 1}, KvShape{1, -1, 1}, KvShape{1, 1, 1 << 21}}) {
    EXPECT_EQ(SettleKvShape(shape, ComputeMode::kAuto).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace polyad
