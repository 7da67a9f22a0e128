#include "tests/kernels/cuda/weight_products.h"

#include <random>

#include "tests/kernels/op_inputs.h"

namespace polyad::test {

std::vector<std::string> CodedKinds() {
  return {"levels", "float8", "groups", "minima", "narrow", "scattered"};
}

StoredWeight MakeCoded(std::string_view kind, int64_t rows, int64_t cols) {
  const int64_t group = kind == "levels"   ? 64
                        : kind == "float8" ? cols
                        : kind == "groups" ? 48
                        : kind == "narrow" ? 8
                                           : 32;
  std::mt19937 random(static_cast<uint32_t>(kind.size() + 17));
  std::uniform_real_distribution<float> scale(0.01f, 0.03f);
  auto made = std::make_shared<GroupedRows>(MakeGroupedRows(rows, cols, group));
  if (kind == "levels") {
    made->kind = CodeKind::kLevels;
    made->bits = 4;
    for (size_t i = 0; i < 16; ++i) {
      made->levels[i] = -1.0f + 0.1331f * static_cast<float>(i);  // no bf16 numbers
    }
  }
  if (kind == "float8") made->kind = CodeKind::kFloat8;
  if (kind == "groups") made->bits = 4;
  for (uint8_t& code : made->codes) code = static_cast<uint8_t>(random() % (1u << made->bits));
  for (uint8_t& code : made->codes) {
    if (kind == "float8" && (code & 0x7f) == 0x7f) code = 0x01;  // no NaN; a subnormal number
  }
  for (float& value : made->scales) value = scale(random);
  if (kind == "groups") {
    for (size_t i = 0; i < made->scales.size(); ++i) {
      made->zeros.push_back(static_cast<float>(random() % 16));
    }
  }
  if (kind == "minima") {
    for (size_t i = 0; i < made->scales.size(); ++i) made->minima.push_back(-40.0f * scale(random));
  }
  if (kind == "narrow") made->zero = 128.0f;
  if (kind == "scattered") {
    made->zero = 100.0f;
    for (int64_t col = 0; col < cols; ++col) {
      made->group_of.push_back(
          static_cast<uint16_t>(random() % static_cast<uint32_t>(made->num_groups)));
    }
  }
  StoredWeight weight{{}, {}, DType::kGrouped, rows, cols};
  weight.values.resize(static_cast<size_t>(rows * cols));
  for (int64_t row = 0; row < rows; ++row) {
    DequantizeRow(*made, row, weight.values.data() + row * cols);
  }
  weight.grouped = std::move(made);
  return weight;
}

WeightProduct ProductOf(Backend& backend, const StoredWeight& weight, int64_t rows, int64_t from) {
  const std::vector<float> all = RandomValues((from + rows) * weight.cols, 8);
  const std::vector<float> values(all.begin() + from * weight.cols, all.end());
  ActivationBuffer x(backend, rows, weight.cols, values);
  FloatBuffer y(rows, weight.rows);
  const TensorView view = weight.view();
  const std::unique_ptr<PackedMatrix> packed = *backend.PackMatrix(std::span(&view, 1));
  backend.Gemm({packed.get(), nullptr, false, {}}, x.rows(), y.view());
  WeightProduct product{y.Values(), {}};
  for (int64_t t = 0; t < rows; ++t) {
    for (int64_t o = 0; o < weight.rows; ++o) {
      product.tolerance.push_back(8 * kEps32 *
                                  NormOf(weight.values.data() + o * weight.cols, weight.cols) *
                                  NormOf(values.data() + t * weight.cols, weight.cols));
    }
  }
  return product;
}

}  // namespace polyad::test
