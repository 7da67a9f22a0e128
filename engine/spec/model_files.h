#pragma once

// A model as it lies on disk, opened and checked: a Hugging Face directory or a .gguf file.
// OpenModel reads the configuration, lists the tensors, and refuses the model unless every weight
// its spec calls for is there with the right shape and no tensor is left that the spec does not
// explain. Weights are read one at a time, already in [out, in] orientation with half-split rotary
// pairs, whatever the container. Const after opening; ReadWeight is thread-safe.

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/base/status.h"
#include "engine/io/tensor_source.h"
#include "engine/spec/gguf_tokenizer.h"
#include "engine/spec/model_spec.h"
#include "engine/spec/weight_names.h"

namespace polyad {

// What engine/text needs: tokenizer_json from a directory (empty where it has none), or gguf.
struct TokenizerFiles {
  std::string tokenizer_json;
  std::string tokenizer_config_json;  // empty where the directory has none
  std::optional<GgufTokenizerMetadata> gguf;
  std::string chat_template;  // empty where the model has none
};

class ModelFiles {
 public:
  // Checks the plan of `spec` against what `source` holds.
  static StatusOr<ModelFiles> Create(ModelSpec spec, WeightFormat format,
                                     std::unique_ptr<TensorSource> source);

  const ModelSpec& spec() const { return spec_; }
  WeightFormat format() const { return format_; }
  const TensorSource& source() const { return *source_; }
  const TokenizerFiles& tokenizer() const { return tokenizer_; }
  const std::vector<WeightEntry>& weights() const { return plan_; }

  bool HasWeight(int64_t layer, WeightKind kind) const;
  // layer is -1 for weights of the model. NOT_FOUND: this model has no such weight (a tied head, an
  // absent bias).
  StatusOr<OwnedTensor> ReadWeight(int64_t layer, WeightKind kind) const;

  void set_tokenizer(TokenizerFiles tokenizer) { tokenizer_ = std::move(tokenizer); }

 private:
  ModelFiles() = default;
  Status CheckPlan();

  ModelSpec spec_;
  WeightFormat format_ = WeightFormat::kHuggingFace;
  std::unique_ptr<TensorSource> source_;
  TokenizerFiles tokenizer_;
  std::vector<WeightEntry> plan_;
  std::map<std::pair<int64_t, WeightKind>, size_t> index_;
};

// `path` is a directory with config.json, or a file ending in .gguf.
StatusOr<ModelFiles> OpenModel(const std::string& path);

}  // namespace polyad
