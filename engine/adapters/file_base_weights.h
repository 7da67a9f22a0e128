#pragma once

// The base's weights for lowerings, read again from the files the model was loaded from, which stay
// open: nothing is held twice, and a file replaced on disk meanwhile changes nothing. What is kept
// are the lengths of matrices' rows and the weights' digest, once asked for. Thread-safe.

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "engine/adapters/base_weights.h"
#include "engine/spec/model_files.h"

namespace polyad {

class FileBaseWeights : public BaseWeights {
 public:
  explicit FileBaseWeights(std::shared_ptr<const ModelFiles> files) : files_(std::move(files)) {}

  StatusOr<std::vector<float>> Matrix(SiteRef site) const override;
  StatusOr<std::vector<float>> Bias(SiteRef site) const override;
  StatusOr<NormVectors> Norm(int64_t layer, NormSite site) const override;
  StatusOr<Digest> WeightsDigest() const override;
  StatusOr<std::vector<double>> RowSquares(SiteRef site, int64_t in) const override;

 private:
  StatusOr<std::vector<float>> Read(int64_t layer, WeightKind kind) const;
  StatusOr<std::vector<float>> ReadIfThere(int64_t layer, WeightKind kind) const;

  std::shared_ptr<const ModelFiles> files_;
  mutable std::mutex mutex_;
  mutable std::map<SiteRef, std::vector<double>> row_squares_;
  mutable std::optional<Digest> digest_;
};

}  // namespace polyad
