#include "engine/model/decoder.h"

#include <numeric>
#include <span>

#include "engine/base/check.h"

namespace polyad {
namespace {

class Carver {
 public:
  Carver(Backend& backend, std::vector<std::shared_ptr<void>>& memory)
      : backend_(backend), memory_(memory) {}

  StatusOr<FloatRows> Floats(int64_t rows, int64_t cols) {
    POLYAD_ASSIGN_OR_RETURN(void* data, Bytes(rows * cols * 4));
    return FloatRows{static_cast<float*>(data), rows, cols, cols};
  }
  StatusOr<ActivationRows> Activations(int64_t rows, int64_t cols) {
    const DType dtype = backend_.activation_dtype();
    POLYAD_ASSIGN_OR_RETURN(void* data, Bytes(rows * RowBytes(dtype, cols)));
    return ActivationRows{data, dtype, rows, cols, cols};
  }

 private:
  StatusOr<void*> Bytes(int64_t bytes) {
    POLYAD_ASSIGN_OR_RETURN(std::shared_ptr<void> block, backend_.Allocate(bytes));
    memory_.push_back(block);
    return block.get();
  }
  Backend& backend_;
  std::vector<std::shared_ptr<void>>& memory_;
};

}  // namespace

Decoder::Decoder(const ModelSpec& spec, const Weights& weights, Backend& backend,
                 int64_t max_position)
    : spec_(spec),
      weights_(weights),
      backend_(backend),
      rope_(spec, max_position),
      linear_(backend) {}

StatusOr<std::unique_ptr<Decoder>> Decoder::Create(const ModelSpec& spec, const Weights& weights,
                                                   Backend& backend, int64_t max_position,
                                                   int64_t max_step_tokens) {
  std::unique_ptr<Decoder> decoder(new Decoder(spec, weights, backend, max_position));
  POLYAD_RETURN_IF_ERROR(decoder->AllocateWorkspace(max_step_tokens));
  return decoder;
}

Status Decoder::AllocateWorkspace(int64_t max_step_tokens) {
  const int64_t tokens = max_step_tokens;
  const int64_t mlp_width = spec_.intermediate_size * (spec_.gated_mlp ? 2 : 1);
  Carver carve(backend_, space_.memory);
  POLYAD_ASSIGN_OR_RETURN(space_.residual, carve.Floats(tokens, spec_.hidden_size));
  POLYAD_ASSIGN_OR_RETURN(space_.normed, carve.Activations(tokens, spec_.hidden_size));
  POLYAD_ASSIGN_OR_RETURN(space_.qkv,
                          carve.Floats(tokens, spec_.QueryWidth() + 2 * spec_.KvWidth()));
  POLYAD_ASSIGN_OR_RETURN(space_.attended, carve.Activations(tokens, spec_.QueryWidth()));
  POLYAD_ASSIGN_OR_RETURN(space_.mlp, carve.Floats(tokens, mlp_width));
  POLYAD_ASSIGN_OR_RETURN(space_.activated, carve.Activations(tokens, spec_.intermediate_size));
  // Every row may sample (prompt logprobs); pages of rows that never do stay untouched and cost no
  // memory.
  POLYAD_ASSIGN_OR_RETURN(space_.sampled, carve.Floats(tokens, spec_.hidden_size));
  POLYAD_ASSIGN_OR_RETURN(space_.head_in, carve.Activations(tokens, spec_.hidden_size));
  POLYAD_ASSIGN_OR_RETURN(space_.logits, carve.Floats(tokens, spec_.vocab_size));
  return absl::OkStatus();
}

FloatRows Decoder::Forward(const StepBatch& batch, KvStorage& kv) {
  POLYAD_CHECK(batch.num_rows() <= space_.residual.rows, "a step larger than the workspace");
  sequences_.clear();
  for (const StepSequence& sequence : batch.sequences) {
    sequences_.push_back({sequence.row_begin,
                          sequence.row_end,
                          sequence.context_end,
                          {batch.block_ids.data() + sequence.block_begin,
                           static_cast<size_t>(sequence.block_end - sequence.block_begin)}});
  }
  StorePrefixes(batch, kv);
  if (batch.num_rows() == 0) return Head(batch);
  Embed(batch, space_.residual.Slice(0, batch.num_rows()));
  for (int64_t layer = 0; layer < spec_.num_layers; ++layer) Layer(layer, batch, kv);
  return Head(batch);
}

void Decoder::Embed(const StepBatch& batch, FloatRows residual) {
  backend_.Embed(*weights_.embedding, batch.token_ids, residual);
  for (const StepPrompt& rows : batch.prompts) {
    prompt_rows_.resize(static_cast<size_t>(rows.row_end - rows.row_begin));
    std::iota(prompt_rows_.begin(), prompt_rows_.end(), static_cast<int32_t>(rows.first));
    backend_.GatherRows(rows.prompt->embeddings, prompt_rows_,
                        residual.Slice(rows.row_begin, rows.row_end));
  }
  if (weights_.position_embedding != nullptr) {
    backend_.AddRows(*weights_.position_embedding, batch.positions, residual);
  }
}

// Keys and values of soft prompts, as they are: without heads of q, rotation and norms, storing is
// all that RotateAndStore does.
void Decoder::StorePrefixes(const StepBatch& batch, KvStorage& kv) {
  for (const StepPrefix& prefix : batch.prefixes) {
    const int64_t count = prefix.slot_end - prefix.slot_begin;
    prompt_rows_.assign(static_cast<size_t>(count), 0);
    QkvArgs store;
    store.positions = prompt_rows_;
    store.slots = std::span(batch.prefix_slots)
                      .subspan(static_cast<size_t>(prefix.slot_begin), static_cast<size_t>(count));
    store.kv = &kv;
    for (store.layer = 0; store.layer < spec_.num_layers; ++store.layer) {
      const FloatRows& rows = prefix.prompt->kv[static_cast<size_t>(store.layer)];
      if (rows.rows == 0) continue;
      store.qkv = rows.Slice(prefix.first, prefix.first + count);
      backend_.RotateAndStore(store);
    }
  }
}

void Decoder::Layer(int64_t layer, const StepBatch& batch, KvStorage& kv) {
  const int64_t rows = batch.num_rows();
  const LayerWeights& weights = weights_.layers[static_cast<size_t>(layer)];
  const FloatRows residual = space_.residual.Slice(0, rows);
  const ActivationRows normed = space_.normed.Slice(0, rows);
  const ActivationRows attended = space_.attended.Slice(0, rows);
  const FloatRows mlp = space_.mlp.Slice(0, rows);
  const ActivationRows activated = space_.activated.Slice(0, rows);

  backend_.Norm(NormOf(weights.attention_norm), residual, normed);
  linear_.Apply(weights.qkv, {layer, SiteGroup::kQkv}, batch, normed, space_.qkv.Slice(0, rows));
  Attend(layer, batch, kv);
  linear_.Apply(weights.attention_out, {layer, SiteGroup::kAttentionOut, /*accumulate=*/true},
                batch, attended, residual);

  backend_.Norm(NormOf(weights.mlp_norm), residual, normed);
  linear_.Apply(weights.mlp_in, {layer, SiteGroup::kMlpIn}, batch, normed, mlp);
  backend_.Activate(spec_.activation, spec_.gated_mlp, mlp, activated);
  linear_.Apply(weights.mlp_out, {layer, SiteGroup::kMlpOut, /*accumulate=*/true}, batch, activated,
                residual);
}

void Decoder::Attend(int64_t layer, const StepBatch& batch, KvStorage& kv) {
  const int64_t rows = batch.num_rows();
  const LayerWeights& weights = weights_.layers[static_cast<size_t>(layer)];
  QkvArgs store;
  store.qkv = space_.qkv.Slice(0, rows);
  store.num_heads = spec_.num_heads;
  if (spec_.qk_norm) {
    store.q_norm = weights.q_norm.weight.data();
    store.k_norm = weights.k_norm.weight.data();
    store.norm_eps = spec_.norm_eps;
  }
  store.rope = rope_.view();
  store.positions = batch.positions;
  store.slots = batch.slots;
  store.kv = &kv;
  store.layer = layer;
  backend_.RotateAndStore(store);

  HidePrefixes(layer, batch);
  AttentionArgs attention;
  attention.qkv = store.qkv;
  attention.out = space_.attended.Slice(0, rows);
  attention.num_heads = spec_.num_heads;
  attention.scale = spec_.attention_scale;
  attention.sliding_window = spec_.sliding_window[static_cast<size_t>(layer)];
  attention.sequences = sequences_;
  attention.kv = &kv;
  attention.layer = layer;
  backend_.Attention(attention);
}

// A layer that a prefix leaves out has nothing in its slots.
void Decoder::HidePrefixes(int64_t layer, const StepBatch& batch) {
  for (size_t i = 0; i < batch.sequences.size(); ++i) {
    const SoftPrompt* prompt = batch.sequences[i].soft_prompt;
    if (prompt == nullptr || !prompt->stores_kv) continue;
    const bool has_it = prompt->kv[static_cast<size_t>(layer)].rows > 0;
    sequences_[i].first_key = has_it ? 0 : prompt->num_tokens;
  }
}

FloatRows Decoder::Head(const StepBatch& batch) {
  const auto samples = static_cast<int64_t>(batch.sample_rows.size());
  const FloatRows logits = space_.logits.Slice(0, samples);
  if (samples == 0) return logits;
  const FloatRows sampled = space_.sampled.Slice(0, samples);
  const ActivationRows head_in = space_.head_in.Slice(0, samples);
  backend_.GatherRows(space_.residual.Slice(0, batch.num_rows()), batch.sample_rows, sampled);
  backend_.Norm(NormOf(weights_.final_norm), sampled, head_in);
  GemmArgs gemm;
  gemm.weight = weights_.head.get();
  backend_.Gemm(gemm, head_in, logits);
  return logits;
}

NormArgs Decoder::NormOf(const NormWeights& weights) const {
  return {spec_.norm, spec_.norm_eps, weights.weight.data(),
          weights.bias.empty() ? nullptr : weights.bias.data()};
}

}  // namespace polyad
