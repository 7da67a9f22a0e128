#include "engine/model/served_base_weights.h"

#include <algorithm>
#include <utility>

#include "engine/base/check.h"
#include "engine/spec/sites.h"

namespace polyad {

const PackedMatrix& ServedBaseWeights::MatrixOf(SiteRef ref) const {
  const Weights& weights = model_.weights();
  if (ref.site == Site::kHead) return *weights.head;
  if (ref.site == Site::kEmbed) return *weights.embedding;
  const LayerWeights& layer = weights.layers[static_cast<size_t>(ref.layer)];
  switch (ref.site) {
    case Site::kQ:
    case Site::kK:
    case Site::kV:
    case Site::kQkv:
      return *layer.qkv.matrix;
    case Site::kO:
      return *layer.attention_out.matrix;
    case Site::kGate:
    case Site::kUp:
    case Site::kFcIn:
      return *layer.mlp_in.matrix;
    case Site::kDown:
    case Site::kFcOut:
    case Site::kHead:
    case Site::kEmbed:
      break;
  }
  return *layer.mlp_out.matrix;
}

StatusOr<std::vector<float>> ServedBaseWeights::Products(SiteRef site,
                                                         const TensorView& inputs) const {
  POLYAD_CHECK(inputs.dtype == DType::kF32, "inputs in fp32");
  const SiteShape shape = ShapeOf(model_.spec(), site.site);
  std::vector<float> x(static_cast<size_t>(inputs.rows * inputs.cols));
  std::copy_n(static_cast<const float*>(inputs.data), x.size(), x.data());
  std::vector<float> y(static_cast<size_t>(inputs.rows * shape.out));
  backend_.ProductOfRows(MatrixOf(site), shape.column,
                         {x.data(), inputs.rows, inputs.cols, inputs.cols},
                         {y.data(), inputs.rows, shape.out, shape.out});
  return y;
}

}  // namespace polyad
