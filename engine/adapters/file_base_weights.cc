#include "engine/adapters/file_base_weights.h"

#include <utility>

namespace polyad {
namespace {

struct SiteWeights {
  WeightKind matrix;
  WeightKind bias;
};

SiteWeights KindsOf(Site site) {
  using K = WeightKind;
  switch (site) {
    case Site::kQ:
      return {K::kQ, K::kQBias};
    case Site::kK:
      return {K::kK, K::kKBias};
    case Site::kV:
      return {K::kV, K::kVBias};
    case Site::kQkv:
      return {K::kQkv, K::kQkvBias};
    case Site::kO:
      return {K::kO, K::kOBias};
    case Site::kGate:
      return {K::kGate, K::kGateBias};
    case Site::kUp:
      return {K::kUp, K::kUpBias};
    case Site::kDown:
      return {K::kDown, K::kDownBias};
    case Site::kFcIn:
      return {K::kFcIn, K::kFcInBias};
    case Site::kFcOut:
      return {K::kFcOut, K::kFcOutBias};
    case Site::kHead:
      return {K::kHead, K::kHead};
    case Site::kEmbed:
      break;
  }
  return {K::kEmbed, K::kEmbed};
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
  WeightKind kind = KindsOf(site.site).matrix;
  if (kind == WeightKind::kHead && files_->spec().tie_embeddings) kind = WeightKind::kEmbed;
  const bool of_model = kind == WeightKind::kHead || kind == WeightKind::kEmbed;
  return Read(of_model ? -1 : site.layer, kind);
}

StatusOr<std::vector<float>> FileBaseWeights::Bias(SiteRef site) const {
  if (site.site == Site::kHead || site.site == Site::kEmbed) return std::vector<float>();
  return ReadIfThere(site.layer, KindsOf(site.site).bias);
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

StatusOr<std::vector<double>> FileBaseWeights::RowSquares(SiteRef site, int64_t in) const {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto found = row_squares_.find(site);
    if (found != row_squares_.end()) return found->second;
  }
  POLYAD_ASSIGN_OR_RETURN(std::vector<double> squares, BaseWeights::RowSquares(site, in));
  std::lock_guard<std::mutex> lock(mutex_);
  return row_squares_.emplace(site, std::move(squares)).first->second;
}

}  // namespace polyad
