#include "engine/model/model.h"

#include <algorithm>

namespace polyad {
namespace {

int64_t CountParameters(const ModelSpec& spec) {
  int64_t total = spec.vocab_size * spec.hidden_size * (spec.tie_embeddings ? 1 : 2);
  for (const Site site : LayerSites(spec)) {
    const SiteShape shape = ShapeOf(spec, site);
    total += spec.num_layers * shape.out * shape.in;
  }
  return total;
}

}  // namespace

StatusOr<std::unique_ptr<Model>> Model::Load(const ModelFiles& files, Backend& backend,
                                             const ModelOptions& options) {
  std::unique_ptr<Model> model(new Model(files.spec(), backend));
  model->max_context_ = model->spec_.max_position;
  if (options.max_context > 0) {
    model->max_context_ = std::min(model->max_context_, options.max_context);
  }
  POLYAD_ASSIGN_OR_RETURN(model->weights_, LoadWeights(files, backend));
  model->num_parameters_ = CountParameters(model->spec_);
  POLYAD_RETURN_IF_ERROR(model->AllocateKv(options));
  // No context is longer than the cache, so no position is beyond it.
  const int64_t longest = std::min(model->max_context_, model->num_kv_blocks() * kBlockTokens);
  POLYAD_ASSIGN_OR_RETURN(model->decoder_, Decoder::Create(model->spec_, model->weights_, backend,
                                                           longest, options.max_step_tokens));
  return model;
}

Status Model::AllocateKv(const ModelOptions& options) {
  const KvShape shape{spec_.num_layers, spec_.num_kv_heads, spec_.head_dim, options.kv_format,
                      options.kv_placement};
  POLYAD_ASSIGN_OR_RETURN(const int64_t block_bytes, backend_.KvBlockBytes(shape));
  const int64_t num_blocks = options.kv_bytes / block_bytes;
  if (num_blocks < 1) {
    return ResourceExhausted("kv pool: expected at least one block of %d bytes, got a budget of %d",
                             block_bytes, options.kv_bytes);
  }
  POLYAD_ASSIGN_OR_RETURN(kv_, backend_.AllocateKv(shape, num_blocks));
  return absl::OkStatus();
}

int64_t Model::sliding_window() const {
  const auto& windows = spec_.sliding_window;
  if (std::find(windows.begin(), windows.end(), 0) != windows.end()) return 0;
  return *std::max_element(windows.begin(), windows.end());
}

StatusOr<FloatRows> Model::Run(const StepBatch& batch) { return decoder_->Forward(batch, *kv_); }

void Model::ArgMax(FloatRows logits, std::span<TokenScore> best) { backend_.ArgMax(logits, best); }

void Model::Draw(FloatRows logits, std::span<const DrawArgs> draws, std::span<int32_t> tokens) {
  backend_.Draw(logits, draws, tokens);
}

}  // namespace polyad
