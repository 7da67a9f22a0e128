#include "engine/model/input_grams.h"

#include <span>
#include <vector>

#include "engine/base/check.h"

namespace polyad {

void InputGrams::OnInput(int64_t layer, SiteGroup group, const ActivationRows& x) {
  if (layer < layer_begin_ || layer >= layer_end_ || !status_.ok()) return;
  POLYAD_CHECK(x.dtype == DType::kF32, "calibration runs in the exact mode");
  Gram& gram = grams_[{layer, group}];
  if (gram.rows == 0) gram.sum = Matrix(x.cols, x.cols);
  gram.rows += x.rows;
  std::vector<float> turned(static_cast<size_t>(x.rows * x.cols));  // [in, rows]
  const auto* data = static_cast<const float*>(x.data);
  for (int64_t row = 0; row < x.rows; ++row) {
    for (int64_t col = 0; col < x.cols; ++col) {
      turned[static_cast<size_t>(col * x.rows + row)] = data[row * x.stride + col];
    }
  }
  const TensorView view{turned.data(), DType::kF32, x.cols, x.rows};
  const auto packed = backend_.PackMatrix(std::span(&view, 1));
  if (!packed.ok()) {
    status_ = packed.status();
    return;
  }
  GemmArgs product;
  product.weight = packed->get();
  product.accumulate = true;
  backend_.Gemm(product, {turned.data(), DType::kF32, x.cols, x.rows, x.rows},
                {gram.sum.values.data(), x.cols, x.cols, x.cols});
}

Matrix InputGrams::Mean(int64_t layer, SiteGroup group) const {
  const auto found = grams_.find({layer, group});
  POLYAD_CHECK(found != grams_.end(), "a group that was observed");
  Matrix mean = found->second.sum;
  Scale(mean, 1.0 / static_cast<double>(found->second.rows));
  return mean;
}

}  // namespace polyad
