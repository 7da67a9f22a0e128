#include "engine/model/served_base_weights.h"

#include <algorithm>
#include <utility>

#include "engine/base/check.h"
#include "engine/spec/sites.h"
#include "kernels/api/give_way.h"

namespace polyad {
namespace {

// A product goes by as many weights as are read in some 100 us, whole panels of rows as the CPU
// backend has them.
constexpr int64_t kPieceWeights = 1 << 19;
constexpr int64_t kPanelRows = 64;

}  // namespace

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
  const int64_t piece = std::max(kPieceWeights / shape.in / kPanelRows, int64_t{1}) * kPanelRows;
  for (int64_t row = 0; row < shape.out; row += piece) {
    const int64_t count = std::min(piece, shape.out - row);
    backend_.ProductOfRows(MatrixOf(site), shape.column + row,
                           {x.data(), inputs.rows, inputs.cols, inputs.cols},
                           {y.data() + row, inputs.rows, count, shape.out});
    GiveWay();
  }
  return y;
}

}  // namespace polyad
