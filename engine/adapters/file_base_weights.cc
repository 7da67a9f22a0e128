#include "engine/adapters/file_base_weights.h"

#include <utility>

#include "engine/adapters/dense_math.h"
#include "engine/spec/weights_digest.h"
#include "kernels/api/give_way.h"

namespace polyad {
namespace {

// The matrix of a site, as stored.
StatusOr<OwnedTensor> ReadMatrix(const ModelFiles& files, SiteRef site) {
  WeightKind kind = WeightsOf(site.site).matrix;
  if (kind == WeightKind::kHead && files.spec().tie_embeddings) kind = WeightKind::kEmbed;
  const bool of_model = kind == WeightKind::kHead || kind == WeightKind::kEmbed;
  return files.ReadWeight(of_model ? -1 : site.layer, kind);
}

bool IsOfNumbers(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16 ||
         dtype == DType::kQ8_0 || dtype == DType::kQ4_0 || dtype == DType::kQ4_1 ||
         dtype == DType::kGrouped;
}

// A row at a time, whatever it is stored as: a few microseconds before it gives way.
std::vector<double> SquaresOfRows(const OwnedTensor& tensor, int64_t in) {
  std::vector<double> squares(static_cast<size_t>(tensor.shape[0]));
  std::vector<float> row(static_cast<size_t>(in));
  for (size_t i = 0; i < squares.size(); ++i) {
    RowToFloats(tensor, static_cast<int64_t>(i), row.data());
    squares[i] = SumOfSquares(row.data(), in);
    GiveWay();
  }
  return squares;
}

}  // namespace

StatusOr<std::vector<float>> FileBaseWeights::Read(int64_t layer, WeightKind kind) const {
  POLYAD_ASSIGN_OR_RETURN(const OwnedTensor tensor, files_->ReadWeight(layer, kind));
  return ToFloats(tensor);
}

StatusOr<std::vector<float>> FileBaseWeights::ReadIfThere(int64_t layer, WeightKind kind) const {
  if (!files_->HasWeight(layer, kind)) return std::vector<float>();
  return Read(layer, kind);
}

StatusOr<std::vector<float>> FileBaseWeights::Matrix(SiteRef site) const {
  POLYAD_ASSIGN_OR_RETURN(const OwnedTensor tensor, ReadMatrix(*files_, site));
  return ToFloats(tensor);
}

StatusOr<std::vector<float>> FileBaseWeights::Bias(SiteRef site) const {
  if (site.site == Site::kHead || site.site == Site::kEmbed) return std::vector<float>();
  return ReadIfThere(site.layer, WeightsOf(site.site).bias);
}

StatusOr<NormVectors> FileBaseWeights::Norm(int64_t layer, NormSite site) const {
  using K = WeightKind;
  std::pair<K, K> kinds{K::kFinalNorm, K::kFinalNormBias};
  switch (site) {
    case NormSite::kAttention:
      kinds = {K::kAttnNorm, K::kAttnNormBias};
      break;
    case NormSite::kMlp:
      kinds = {K::kMlpNorm, K::kMlpNormBias};
      break;
    case NormSite::kFinal:
      break;
    case NormSite::kQueryHead:
    case NormSite::kKeyHead: {
      NormVectors norm;
      const K kind = site == NormSite::kQueryHead ? K::kQNorm : K::kKNorm;
      POLYAD_ASSIGN_OR_RETURN(norm.weight, ReadIfThere(layer, kind));
      return norm;
    }
  }
  NormVectors norm;
  POLYAD_ASSIGN_OR_RETURN(norm.weight, ReadIfThere(layer, kinds.first));
  POLYAD_ASSIGN_OR_RETURN(norm.bias, ReadIfThere(layer, kinds.second));
  return norm;
}

StatusOr<Digest> FileBaseWeights::WeightsDigest() const {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (digest_) return *digest_;
  }
  POLYAD_ASSIGN_OR_RETURN(const Digest digest, polyad::WeightsDigest(*files_));
  std::lock_guard<std::mutex> lock(mutex_);
  digest_ = digest;
  return digest;
}

StatusOr<std::vector<double>> FileBaseWeights::RowSquares(SiteRef site, int64_t in) const {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto found = row_squares_.find(site);
    if (found != row_squares_.end()) return found->second;
  }
  std::vector<double> squares;
  POLYAD_ASSIGN_OR_RETURN(const OwnedTensor tensor, ReadMatrix(*files_, site));
  if (IsOfNumbers(tensor.dtype) && tensor.shape.size() == 2 && tensor.shape[1] == in) {
    squares = SquaresOfRows(tensor, in);
  } else {
    POLYAD_ASSIGN_OR_RETURN(squares, BaseWeights::RowSquares(site, in));
  }
  std::lock_guard<std::mutex> lock(mutex_);
  return row_squares_.emplace(site, std::move(squares)).first->second;
}

}  // namespace polyad
