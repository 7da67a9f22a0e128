#include "engine/spec/weights_digest.h"

#include <algorithm>
#include <vector>

#include "kernels/api/give_way.h"

namespace polyad {
namespace {

constexpr int64_t kPieceBytes = 256 * 1024;  // hashed before it gives way

void Hash(const OwnedTensor& tensor, Sha256& sha) {
  if (tensor.dtype ==
      DType::kGrouped) {  // its parts are several tensors: the values they stand for
    std::vector<float> row(static_cast<size_t>(tensor.grouped->cols));
    for (int64_t i = 0; i < tensor.grouped->rows; ++i) {
      RowToFloats(tensor, i, row.data());
      sha.Update(row.data(), row.size() * sizeof(float));
      GiveWay();
    }
    return;
  }
  for (int64_t at = 0; at < tensor.bytes.size(); at += kPieceBytes) {
    const int64_t piece = std::min(kPieceBytes, tensor.bytes.size() - at);
    sha.Update(tensor.bytes.data() + at, static_cast<size_t>(piece));
    GiveWay();
  }
}

}  // namespace

StatusOr<Digest> WeightsDigest(const ModelFiles& files) {
  Sha256 sha;
  for (const WeightEntry& entry : files.weights()) {
    POLYAD_ASSIGN_OR_RETURN(const OwnedTensor tensor, files.ReadWeight(entry.layer, entry.kind));
    sha.UpdateInt(entry.layer);
    sha.UpdateInt(static_cast<int64_t>(entry.kind));
    sha.UpdateInt(static_cast<int64_t>(tensor.dtype));
    for (const int64_t size : tensor.shape) sha.UpdateInt(size);
    Hash(tensor, sha);
  }
  return sha.Finish();
}

}  // namespace polyad
