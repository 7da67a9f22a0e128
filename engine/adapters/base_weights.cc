#include "engine/adapters/base_weights.h"

#include <utility>

#include "engine/adapters/dense_math.h"
#include "kernels/api/give_way.h"

namespace polyad {

StatusOr<Digest> BaseWeights::WeightsDigest() const {
  return FailedPrecondition("the base's files are not at hand, so it cannot be told from others");
}

StatusOr<std::vector<double>> BaseWeights::RowSquares(SiteRef site, int64_t in) const {
  POLYAD_ASSIGN_OR_RETURN(const std::vector<float> weight, Matrix(site));
  std::vector<double> squares(weight.size() / static_cast<size_t>(in));
  for (size_t i = 0; i < squares.size(); ++i) {
    squares[i] = SumOfSquares(weight.data() + static_cast<int64_t>(i) * in, in);
    GiveWay();
  }
  return squares;
}

StatusOr<std::vector<float>> BaseWeights::Products(SiteRef site, const TensorView& inputs) const {
  POLYAD_ASSIGN_OR_RETURN(std::vector<float> values, Matrix(site));
  const auto out = static_cast<int64_t>(values.size()) / inputs.cols;
  const polyad::Matrix weight(out, inputs.cols, std::move(values));
  return MultiplyTransposed(Widened(inputs), weight).values;
}

}  // namespace polyad
