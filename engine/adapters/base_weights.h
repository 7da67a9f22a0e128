#pragma once

// What a lowering may read of the base model: its weights as the server computes with them, widened
// to fp32 (a quantised base is dequantised first). The model implements it; lowerings of families
// that need the base (DoRA's norms, HRA's reflections) call it on a loader thread. Thread-safe.
// Matrices are [out, in] row-major; a call for one reads the file anew, so nothing is held twice.

#include <cstdint>
#include <vector>

#include "engine/base/digest.h"
#include "engine/base/status.h"
#include "engine/spec/sites.h"
#include "kernels/api/tensor_view.h"

namespace polyad {

enum class NormSite : uint8_t { kAttention, kMlp, kFinal, kQueryHead, kKeyHead };

struct NormVectors {
  std::vector<float> weight;
  std::vector<float> bias;  // empty where the architecture has none
};

class BaseWeights {
 public:
  virtual ~BaseWeights() = default;

  // kEmbed is the token table [vocab, hidden]; kHead is the same where the model ties them.
  virtual StatusOr<std::vector<float>> Matrix(SiteRef site) const = 0;
  // [out], empty where the base has no bias there.
  virtual StatusOr<std::vector<float>> Bias(SiteRef site) const = 0;
  // layer is -1 for the final norm. Empty vectors where the model has no such norm.
  virtual StatusOr<NormVectors> Norm(int64_t layer, NormSite site) const = 0;

  // What tells this base from others (engine/spec/weights_digest.h). FAILED_PRECONDITION where no
  // files are at hand.
  virtual StatusOr<Digest> WeightsDigest() const;

  // |row|^2 of each row of a matrix of `in` inputs: [out].
  virtual StatusOr<std::vector<double>> RowSquares(SiteRef site, int64_t in) const;
  // W x for each row x of `inputs`, f32 [n, in]: [n, out]. Summed in fp64 here; a server may give
  // them in the precision that it serves in.
  virtual StatusOr<std::vector<float>> Products(SiteRef site, const TensorView& inputs) const;
};

}  // namespace polyad
