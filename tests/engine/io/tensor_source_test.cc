#include "engine/io/tensor_source.h"

#include <cstring>
#include <vector>

#include "engine/io/quote.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace polyad {
namespace {

using ::testing::ElementsAre;

TEST(TensorSourceTest, CountsElementsWithoutWrapping) {
  EXPECT_EQ(NumElements({}), 1);
  EXPECT_EQ(NumElements({3, 5}), 15);
  EXPECT_EQ(NumElements({3, 0, 5}), 0);
  EXPECT_EQ(NumElements({int64_t{1} << 32, int64_t{1} << 30}), int64_t{1} << 62);
  EXPECT_EQ(NumElements({int64_t{1} << 32, int64_t{1} << 31}), std::nullopt);
  EXPECT_EQ(NumElements({0, int64_t{1} << 32, int64_t{1} << 32}), std::nullopt);
}

TEST(TensorSourceTest, ViewsAreTwoDimensional) {
  OwnedTensor tensor;
  const auto shape_of = [&](std::vector<int64_t> shape) {
    tensor.shape = std::move(shape);
    return std::vector<int64_t>{tensor.view().rows, tensor.view().cols};
  };
  EXPECT_THAT(shape_of({}), ElementsAre(1, 1));
  EXPECT_THAT(shape_of({7}), ElementsAre(1, 7));
  EXPECT_THAT(shape_of({3, 7}), ElementsAre(3, 7));
  EXPECT_THAT(shape_of({2, 3, 7}), ElementsAre(6, 7));
}

template <typename Element>
OwnedTensor TensorOf(DType dtype, const std::vector<Element>& elements) {
  OwnedTensor tensor;
  tensor.dtype = dtype;
  tensor.shape = {static_cast<int64_t>(elements.size())};
  const size_t bytes = elements.size() * sizeof(Element);
  tensor.bytes = *OwnedBytes::Allocate(static_cast<int64_t>(bytes));
  std::memcpy(tensor.bytes.data(), elements.data(), bytes);
  return tensor;
}

TEST(TensorSourceTest, WidensFloats) {
  EXPECT_THAT(*ToFloats(TensorOf<float>(DType::kF32, {1.5f, -2.0f})), ElementsAre(1.5f, -2.0f));
  EXPECT_THAT(*ToFloats(TensorOf<double>(DType::kF64, {0.25})), ElementsAre(0.25f));
  EXPECT_THAT(*ToFloats(TensorOf<uint16_t>(DType::kF16, {0x3e00, 0xc000})),
              ElementsAre(1.5f, -2.0f));
  EXPECT_THAT(*ToFloats(TensorOf<uint16_t>(DType::kBF16, {0x3fc0, 0xc000})),
              ElementsAre(1.5f, -2.0f));
  EXPECT_EQ(ToFloats(TensorOf<int32_t>(DType::kI32, {1})).status().code(),
            absl::StatusCode::kUnimplemented);
}

TEST(QuoteTest, EscapesAndCutsOutsideText) {
  EXPECT_EQ(Quote("q_proj"), "'q_proj'");
  EXPECT_EQ(Quote("a'b\\c"), "'a\\x27b\\x5cc'");
  EXPECT_EQ(Quote("\n\xff"), "'\\x0a\\xff'");
  EXPECT_EQ(Quote(std::string(97, 'a')), "'" + std::string(96, 'a') + "...'");
}

}  // namespace
}  // namespace polyad
