#include "kernels/reference/element.h"

#include <cmath>
#include <vector>

#include "gtest/gtest.h"

namespace polyad::ref {
namespace {

TEST(ElementTest, HalfPrecisionCoversNormalsSubnormalsAndInfinities) {
  EXPECT_EQ(F16ToDouble(0x3c00), 1.0);
  EXPECT_EQ(F16ToDouble(0xc000), -2.0);
  EXPECT_EQ(F16ToDouble(0x7bff), 65504.0);
  EXPECT_EQ(F16ToDouble(0x0001), 0x1p-24);
  EXPECT_EQ(F16ToDouble(0x8400), -0x1p-14);
  EXPECT_EQ(F16ToDouble(0x7c00), INFINITY);
  EXPECT_TRUE(std::isnan(F16ToDouble(0x7e00)));
}

TEST(ElementTest, Bf16RoundsToNearestWithTiesToEven) {
  EXPECT_EQ(ToBf16(1.0), 0x3f80);
  EXPECT_EQ(ToBf16(1.0 + 0x1p-8), 0x3f80);      // a tie, down to even
  EXPECT_EQ(ToBf16(1.0 + 3 * 0x1p-8), 0x3f82);  // a tie, up to even
  EXPECT_EQ(ToBf16(1.0 + 0x1p-8 + 0x1p-20), 0x3f81);
  EXPECT_TRUE(std::isnan(Bf16ToDouble(ToBf16(NAN))));
}

TEST(ElementTest, BlocksDecodeAsTheirFormatsSay) {
  std::vector<unsigned char> q8_0(34, 0);
  q8_0[1] = 0x38;  // d = 0.5
  q8_0[2] = 0x80;  // -128
  q8_0[33] = 3;
  EXPECT_EQ(ReadElement(TensorView{q8_0.data(), DType::kQ8_0, 1, 32}, 0, 0), -64.0);
  EXPECT_EQ(ReadElement(TensorView{q8_0.data(), DType::kQ8_0, 1, 32}, 0, 31), 1.5);

  std::vector<unsigned char> q4_0(18, 0);
  q4_0[1] = 0x3c;  // d = 1
  q4_0[2] = 0xf1;  // elements 0 and 16
  EXPECT_EQ(ReadElement(TensorView{q4_0.data(), DType::kQ4_0, 1, 32}, 0, 0), -7.0);
  EXPECT_EQ(ReadElement(TensorView{q4_0.data(), DType::kQ4_0, 1, 32}, 0, 16), 7.0);

  std::vector<unsigned char> q4_1(20, 0);
  q4_1[1] = 0x40;   // d = 2
  q4_1[3] = 0xc2;   // m = -3
  q4_1[19] = 0x5a;  // elements 15 and 31
  EXPECT_EQ(ReadElement(TensorView{q4_1.data(), DType::kQ4_1, 1, 32}, 0, 15), 17.0);
  EXPECT_EQ(ReadElement(TensorView{q4_1.data(), DType::kQ4_1, 1, 32}, 0, 31), 7.0);
  EXPECT_EQ(ReadElement(TensorView{q4_1.data(), DType::kQ4_1, 1, 32}, 0, 0), -3.0);
}

}  // namespace
}  // namespace polyad::ref
