#pragma once

// The base's weights for lowerings on a server that has them in memory: products with them come
// from the packed matrices, as the model itself would give them, and take neither a file's bytes
// nor a copy. All else is read from the files. Thread-safe; model and backend must outlive it.

#include <memory>
#include <vector>

#include "engine/adapters/file_base_weights.h"
#include "engine/model/model.h"
#include "kernels/api/backend.h"

namespace polyad {

class ServedBaseWeights final : public FileBaseWeights {
 public:
  ServedBaseWeights(std::shared_ptr<const ModelFiles> files, const Model& model, Backend& backend)
      : FileBaseWeights(std::move(files)), model_(model), backend_(backend) {}

  StatusOr<std::vector<float>> Products(SiteRef site, const TensorView& inputs) const override;

 private:
  const PackedMatrix& MatrixOf(SiteRef site) const;

  const Model& model_;
  Backend& backend_;
};

}  // namespace polyad
