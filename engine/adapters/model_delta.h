#pragma once

// What a fine-tune changed of its base: two models on disk, checked to be the same but for their
// numbers, and their weights pair by pair. The change is taken against the base as it is served: a
// quantised one is dequantised. No more than one pair is held, as stored. One thread.
// FAILED_PRECONDITION: two different models, naming the tensor or the setting, expected and got.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/status.h"
#include "engine/io/tensor_source.h"
#include "engine/spec/model_files.h"

namespace polyad {

// One weight in both models. A bias or a head that one of them lacks counts as zeros or as the
// embedding.
class WeightPair {
 public:
  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  // The fine-tune's row less the base's: out[0, cols). Zero where the fine-tune has the base's
  // number, rounded to the type that it stores.
  void Change(int64_t row, float* out) const;
  void FineTuned(int64_t row, float* out) const;
  bool IsChanged(int64_t row) const;

 private:
  friend class ModelDelta;
  std::optional<OwnedTensor> base_;
  std::optional<OwnedTensor> fine_tuned_;
  int64_t rows_ = 0;
  int64_t cols_ = 0;
  mutable std::vector<float> scratch_;
};

class ModelDelta {
 public:
  // Paths as OpenModel takes them.
  static StatusOr<ModelDelta> Open(const std::string& base, const std::string& fine_tuned);
  static StatusOr<ModelDelta> Of(ModelFiles base, ModelFiles fine_tuned);

  const ModelFiles& base() const { return base_; }
  const ModelFiles& fine_tuned() const { return fine_tuned_; }
  // Whether either model has it; a tied head is the embedding.
  bool Has(int64_t layer, WeightKind kind) const;
  StatusOr<WeightPair> Read(int64_t layer, WeightKind kind) const;

 private:
  ModelDelta(ModelFiles base, ModelFiles fine_tuned)
      : base_(std::move(base)), fine_tuned_(std::move(fine_tuned)) {}
  Status CheckShapes() const;
  Status CheckSettings() const;

  ModelFiles base_;
  ModelFiles fine_tuned_;
};

}  // namespace polyad
