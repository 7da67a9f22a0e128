#include "engine/model/decoder.h"

#include <algorithm>
#include <numeric>
#include <span>

#include "engine/base/check.h"
#include "engine/model/segment_gate.h"
#include "engine/model/workspace.h"

namespace polyad {
namespace {

constexpr int64_t kStoredRows = 64;  // of keys and values, made and stored at a time

// A sequence's gates of a layer's stored keys, or null.
const KeyGates* GatesOf(const StepSequence& sequence, int64_t layer) {
  const SoftPrompt* prompt = sequence.soft_prompt;
  if (prompt == nullptr || prompt->key_gates.empty()) return nullptr;
  const KeyGates& gates = prompt->key_gates[static_cast<size_t>(layer)];
  return gates.weight == nullptr ? nullptr : &gates;
}

// Columns of one row's gates: whole blocks of keys.
int64_t GateColumns(const SoftPrompt& prompt) {
  return (prompt.num_slots() + kBlockTokens - 1) / kBlockTokens * kBlockTokens;
}

}  // namespace

Decoder::Decoder(const ModelSpec& spec, const Weights& weights, Backend& backend,
                 int64_t max_context)
    : spec_(spec),
      weights_(weights),
      backend_(backend),
      rope_(spec.rope, spec.max_position, max_context),
      linear_(backend),
      scaling_(backend) {}

StatusOr<std::unique_ptr<Decoder>> Decoder::Create(const ModelSpec& spec, const Weights& weights,
                                                   Backend& backend, int64_t max_context,
                                                   int64_t max_step_tokens) {
  std::unique_ptr<Decoder> decoder(new Decoder(spec, weights, backend, max_context));
  POLYAD_RETURN_IF_ERROR(decoder->AllocateWorkspace(max_step_tokens));
  return decoder;
}

Status Decoder::AllocateWorkspace(int64_t max_step_tokens) {
  const int64_t tokens = max_step_tokens;
  const int64_t mlp_width = spec_.intermediate_size * (spec_.gated_mlp ? 2 : 1);
  RowCarver carve(backend_, space_.memory);
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
  POLYAD_ASSIGN_OR_RETURN(space_.hidden, carve.Floats(tokens, spec_.hidden_size));
  POLYAD_ASSIGN_OR_RETURN(stored_rows_, carve.Floats(kStoredRows, 2 * spec_.KvWidth()));
  POLYAD_ASSIGN_OR_RETURN(gate_scores_, carve.Floats(kStoredRows, kMaxGatedKeys));
  POLYAD_ASSIGN_OR_RETURN(layer_in_, carve.Activations(tokens, spec_.hidden_size));
  POLYAD_RETURN_IF_ERROR(scaling_.AllocateWorkspace(tokens));
  linear_.SetCoefficients(scaling_.coefficients());
  const int64_t qkv_width = spec_.QueryWidth() + 2 * spec_.KvWidth();
  return linear_.AllocateWorkspace(
      {tokens, spec_.hidden_size,
       std::max({spec_.hidden_size, spec_.QueryWidth(), spec_.intermediate_size}),
       std::max(qkv_width, mlp_width)});
}

FloatRows Decoder::Forward(const StepBatch& batch, KvStorage& kv) {
  POLYAD_CHECK(batch.num_rows() <= space_.residual.rows, "a step larger than the workspace");
  FindCoefficients(batch, kv);
  StorePrefixes(batch, kv);
  if (batch.num_rows() > 0) RunLayers(batch, kv);
  FindHiddenStates(batch);
  const FloatRows logits = Head(batch);
  backend_.Finish();
  return logits;
}

// The first pass of adapters that have one, over its own cache.
void Decoder::FindCoefficients(const StepBatch& batch, KvStorage& kv) {
  const StepBatch& first = scaling_.MakeBatch(batch);
  if (first.num_rows() == 0) return;
  RunLayers(first, kv);
  const ActivationRows hidden = space_.normed.Slice(0, first.num_rows());
  Norm(-1, NormSite::kFinal, first.segments, space_.residual.Slice(0, first.num_rows()), hidden);
  scaling_.Classify(hidden);
}

void Decoder::RunLayers(const StepBatch& batch, KvStorage& kv) {
  sequences_.clear();
  for (const StepSequence& sequence : batch.sequences) {
    sequences_.push_back({sequence.row_begin,
                          sequence.row_end,
                          sequence.context_end,
                          {batch.block_ids.data() + sequence.block_begin,
                           static_cast<size_t>(sequence.block_end - sequence.block_begin)}});
  }
  FindRotations(batch);
  Embed(batch, space_.residual.Slice(0, batch.num_rows()));
  for (int64_t layer = 0; layer < spec_.num_layers; ++layer) Layer(layer, batch, kv);
}

void Decoder::Embed(const StepBatch& batch, FloatRows residual) {
  backend_.Embed(*weights_.embedding, batch.token_ids, residual);
  std::vector<DeltaSegment> segments;
  for (const StepSegment& segment : batch.segments) {
    if (segment.adapter == nullptr) continue;
    for (const auto& op : segment.adapter->embedding_ops()) {
      segments.push_back({segment.row_begin, segment.row_end, 0, op.get()});
    }
  }
  if (!segments.empty()) backend_.TransformEmbedding(segments, batch.token_ids, residual);
  for (const StepPrompt& rows : batch.prompts) {
    prompt_rows_.resize(static_cast<size_t>(rows.row_end - rows.row_begin));
    std::iota(prompt_rows_.begin(), prompt_rows_.end(), static_cast<int32_t>(rows.first));
    backend_.GatherRows(rows.prompt->embeddings, prompt_rows_,
                        residual.Slice(rows.row_begin, rows.row_end));
    if (rows.scale == 1.0f) continue;
    backend_.Finish();
    ScaleBy(rows.scale, residual.Slice(rows.row_begin, rows.row_end));
    backend_.HostWrote(residual.Slice(rows.row_begin, rows.row_end));
  }
  if (weights_.position_embedding != nullptr) {
    backend_.AddRows(*weights_.position_embedding, batch.positions, residual);
  }
  for (const StepSegment& segment : batch.segments) {
    if (segment.adapter == nullptr) continue;
    for (const SiteDelta& delta : segment.adapter->stream_ops()) {
      const FloatRows own = residual.Slice(segment.row_begin, segment.row_end);
      const ActivationRows read = space_.normed.Slice(0, own.rows);
      backend_.Convert(own, read);
      const DeltaSegment rows{0, own.rows, 0, delta.op.get(), delta.scale};
      backend_.Apply(std::span(&rows, 1), read, own);
    }
  }
  linear_.Couple(batch.segments, residual);
}

// Keys and values of soft prompts, as they are: without heads of q, rotation and norms, storing is
// all that RotateAndStore does. Slots that stay empty, of padding and of layers that a prefix
// leaves out, are zeroed: attention gives them no weight, but no weight silences another tenant's
// NaN.
void Decoder::StorePrefixes(const StepBatch& batch, KvStorage& kv) {
  for (const StepPrefix& prefix : batch.prefixes) {
    const SoftPrompt& prompt = *prefix.prompt;
    const int64_t end = prefix.first + prefix.slot_end - prefix.slot_begin;
    const int64_t empty_end = std::min(end, std::max(prefix.first, prompt.padding));
    const auto slots =
        std::span(batch.prefix_slots).subspan(static_cast<size_t>(prefix.slot_begin));
    const auto num_empty = static_cast<size_t>(empty_end - prefix.first);
    for (int64_t layer = 0; layer < spec_.num_layers; ++layer) {
      StoreNothing(layer, slots.first(num_empty), kv);
      if (empty_end == end) continue;
      const auto filled = slots.subspan(num_empty, static_cast<size_t>(end - empty_end));
      const FloatRows& rows = prompt.kv[static_cast<size_t>(layer)];
      if (rows.rows == 0) {
        StoreNothing(layer, filled, kv);
      } else {
        Store(layer, rows.Slice(empty_end - prompt.padding, end - prompt.padding), filled, kv);
      }
    }
  }
}

void Decoder::StoreNothing(int64_t layer, std::span<const int64_t> slots, KvStorage& kv) {
  while (!slots.empty()) {
    const size_t count = std::min(slots.size(), static_cast<size_t>(kStoredRows));
    const FloatRows zeros = stored_rows_.Slice(0, static_cast<int64_t>(count));
    backend_.Zero(zeros);
    Store(layer, zeros, slots.first(count), kv);
    slots = slots.subspan(count);
  }
}

// Rows of keys and values into slots of one layer.
void Decoder::Store(int64_t layer, FloatRows rows, std::span<const int64_t> slots, KvStorage& kv) {
  positions_.assign(slots.size(), 0);  // they mean nothing
  QkvArgs store;
  store.qkv = rows;
  store.positions = positions_;
  store.slots = slots;
  store.kv = &kv;
  store.layer = layer;
  backend_.RotateAndStore(store);
}

// A gated prefix's keys and values of this step and layer, in place of those of the step before.
void Decoder::StoreGatedPrefixes(int64_t layer, const StepBatch& batch, ActivationRows normed,
                                 KvStorage& kv) {
  for (const StepSequence& sequence : batch.sequences) {
    const SoftPrompt* prompt = sequence.soft_prompt;
    if (prompt == nullptr || prompt->gates.empty()) continue;
    const FloatRows& rows = prompt->kv[static_cast<size_t>(layer)];
    if (rows.rows == 0) continue;
    const PrefixGate& gate = prompt->gates[static_cast<size_t>(layer)];
    const ActivationRows own = normed.Slice(sequence.row_begin, sequence.row_end);
    backend_.Finish();
    const float on_keys = MeanGate(gate.key_weight, gate.key_bias, own);
    const float on_values =
        gate.value_weight.empty() ? on_keys : MeanGate(gate.value_weight, gate.value_bias, own);
    for (int64_t first = 0; first < rows.rows; first += kStoredRows) {
      const int64_t count = std::min(kStoredRows, rows.rows - first);
      const FloatRows gated = stored_rows_.Slice(0, count);
      backend_.Copy(rows.Slice(first, first + count), gated);
      backend_.Finish();
      ScaleBy(on_keys, gated.Columns(0, spec_.KvWidth()));
      ScaleBy(on_values, gated.Columns(spec_.KvWidth(), spec_.KvWidth()));
      backend_.HostWrote(gated);
      FindSlots(sequence, first, first + count, batch);
      Store(layer, gated, prefix_slots_, kv);
    }
  }
}

// Slots of tokens [first, end) of a sequence.
void Decoder::FindSlots(const StepSequence& sequence, int64_t first, int64_t end,
                        const StepBatch& batch) {
  prefix_slots_.clear();
  for (int64_t i = first; i < end; ++i) {
    const auto block = static_cast<size_t>(sequence.block_begin + i / kBlockTokens);
    prefix_slots_.push_back(int64_t{batch.block_ids[block]} * kBlockTokens + i % kBlockTokens);
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

  const auto linear = [&](const LinearWeights& product, SiteGroup group, ActivationRows x,
                          FloatRows y) {
    Observe(layer, group, x);
    const bool ends_sub_layer = group == SiteGroup::kAttentionOut || group == SiteGroup::kMlpOut;
    linear_.Apply({product.matrix.get(), &product.bias}, {layer, group, ends_sub_layer, normed},
                  batch.segments, x, y);
  };
  Norm(layer, NormSite::kAttention, batch.segments, residual, normed);
  linear(weights.qkv, SiteGroup::kQkv, normed, space_.qkv.Slice(0, rows));
  StoreGatedPrefixes(layer, batch, normed, kv);
  GateKeys(layer, batch, normed);
  Attend(layer, batch, kv);
  linear(weights.attention_out, SiteGroup::kAttentionOut, attended, residual);
  AddGatedPrefixes(layer, batch, /*after_projection=*/true,
                   {residual.data, DType::kF32, rows, residual.cols, residual.stride});

  Norm(layer, NormSite::kMlp, batch.segments, residual, normed);
  linear(weights.mlp_in, SiteGroup::kMlpIn, normed, mlp);
  backend_.Activate(spec_.activation, spec_.gated_mlp, mlp, activated);
  linear(weights.mlp_out, SiteGroup::kMlpOut, activated, residual);
}

void Decoder::Observe(int64_t layer, SiteGroup group, ActivationRows x) {
  if (observer_ == nullptr) return;
  backend_.Finish();
  observer_->OnInput(layer, group, x);
}

void Decoder::Norm(int64_t layer, NormSite site, std::span<const StepSegment> segments, FloatRows x,
                   ActivationRows y) {
  const NormWeights* base = &weights_.final_norm;
  if (layer >= 0) {
    const LayerWeights& weights = weights_.layers[static_cast<size_t>(layer)];
    base = site == NormSite::kAttention ? &weights.attention_norm : &weights.mlp_norm;
  }
  backend_.Norm(NormOf(*base), x, y);
  for (const StepSegment& segment : segments) {
    if (segment.adapter == nullptr) continue;
    const NormVectors* own = segment.adapter->Norm(layer, site);
    if (own == nullptr) continue;
    const NormArgs args{spec_.norm, spec_.norm_eps, own->weight.data(),
                        own->bias.empty() ? nullptr : own->bias.data()};
    backend_.Norm(args, x.Slice(segment.row_begin, segment.row_end),
                  y.Slice(segment.row_begin, segment.row_end));
  }
}

// One for all rows, but where an adapter has tables or norms of heads of its own, and where
// sequences of different lengths turn differently.
void Decoder::FindRotations(const StepBatch& batch) {
  rotations_.clear();
  size_t segment = 0;
  for (const StepSequence& rows : batch.sequences) {
    const RopeTable rope = (rows.rope == nullptr ? rope_ : *rows.rope).view(rows.rope_choice);
    for (int64_t begin = rows.row_begin; begin < rows.row_end;) {
      while (batch.segments[segment].row_end <= begin) ++segment;
      const AdapterVersion* adapter = batch.segments[segment].adapter;
      const bool own_norms = spec_.qk_norm && adapter != nullptr && adapter->replaces_norms();
      const AdapterVersion* norms = own_norms ? adapter : nullptr;
      const int64_t end = std::min(rows.row_end, batch.segments[segment].row_end);
      if (rotations_.empty() || rotations_.back().rope.cos != rope.cos ||
          rotations_.back().norms != norms) {
        rotations_.push_back({begin, end, rope, norms});
      }
      rotations_.back().row_end = end;
      begin = end;
    }
  }
}

void Decoder::RotateAndStore(int64_t layer, const StepBatch& batch, KvStorage& kv) {
  const LayerWeights& weights = weights_.layers[static_cast<size_t>(layer)];
  for (const Rotation& rows : rotations_) {
    QkvArgs store;
    store.qkv = space_.qkv.Slice(rows.row_begin, rows.row_end);
    store.num_heads = spec_.num_heads;
    if (spec_.qk_norm) {
      const auto own = [&](NormSite site) {
        return rows.norms == nullptr ? nullptr : rows.norms->Norm(layer, site);
      };
      const NormVectors* q = own(NormSite::kQueryHead);
      const NormVectors* k = own(NormSite::kKeyHead);
      store.q_norm = q == nullptr ? weights.q_norm.weight.data() : q->weight.data();
      store.k_norm = k == nullptr ? weights.k_norm.weight.data() : k->weight.data();
      store.norm_eps = spec_.norm_eps;
    }
    const auto first = static_cast<size_t>(rows.row_begin);
    const auto count = static_cast<size_t>(rows.row_end - rows.row_begin);
    store.rope = rows.rope;
    store.positions = std::span(batch.positions).subspan(first, count);
    store.slots = std::span(batch.slots).subspan(first, count);
    store.kv = &kv;
    store.layer = layer;
    backend_.RotateAndStore(store);
  }
}

void Decoder::Attend(int64_t layer, const StepBatch& batch, KvStorage& kv) {
  RotateAndStore(layer, batch, kv);
  const int64_t rows = batch.num_rows();
  HidePrefixes(layer, batch);
  AttentionArgs attention;
  attention.qkv = space_.qkv.Slice(0, rows);
  attention.out = space_.attended.Slice(0, rows);
  attention.num_heads = spec_.num_heads;
  attention.scale = spec_.attention_scale;
  attention.sliding_window = spec_.sliding_window[static_cast<size_t>(layer)];
  attention.sequences = sequences_;
  attention.kv = &kv;
  attention.layer = layer;
  backend_.Attention(attention);
  AddGatedPrefixes(layer, batch, /*after_projection=*/false, attention.out);
}

// The second attention of adapters that have one, onto the attention's heads or, past the output
// projection, onto the stream.
void Decoder::AddGatedPrefixes(int64_t layer, const StepBatch& batch, bool after_projection,
                               ActivationRows out) {
  for (const StepSegment& segment : batch.segments) {
    if (segment.adapter == nullptr) continue;
    for (const GatedPrefix& prefix : segment.adapter->gated_prefixes()) {
      if (prefix.layer != layer || prefix.after_projection != after_projection) continue;
      GatedPrefixArgs args;
      args.q = space_.qkv.Slice(segment.row_begin, segment.row_end).Columns(0, spec_.QueryWidth());
      args.kv = prefix.kv;
      args.out = out.Slice(segment.row_begin, segment.row_end);
      args.num_heads = spec_.num_heads;
      args.num_kv_heads = spec_.num_kv_heads;
      args.head_dim = spec_.head_dim;
      args.scale = spec_.attention_scale;
      args.gate = prefix.gate.data();
      backend_.AddGatedPrefix(args);
    }
  }
}

// Empty slots: those before a soft prompt, and all of its own in a layer that it leaves out.
void Decoder::HidePrefixes(int64_t layer, const StepBatch& batch) {
  for (size_t i = 0; i < batch.sequences.size(); ++i) {
    const SoftPrompt* prompt = batch.sequences[i].soft_prompt;
    if (prompt == nullptr) continue;
    const bool leaves_out = prompt->stores_kv && prompt->kv[static_cast<size_t>(layer)].rows == 0;
    sequences_[i].first_key = leaves_out ? prompt->num_slots() : prompt->padding;
  }
}

// What each row's own gates make of the layer's stored keys; the text's count whole.
void Decoder::GateKeys(int64_t layer, const StepBatch& batch, ActivationRows normed) {
  int64_t count = 0;
  for (size_t i = 0; i < batch.sequences.size(); ++i) {
    const StepSequence& sequence = batch.sequences[i];
    sequences_[i].key_gates = {};
    if (GatesOf(sequence, layer) == nullptr) continue;
    count += (sequence.row_end - sequence.row_begin) * GateColumns(*sequence.soft_prompt);
  }
  if (count == 0) return;
  key_gates_.assign(static_cast<size_t>(count), 1.0f);
  float* next = key_gates_.data();
  for (size_t i = 0; i < batch.sequences.size(); ++i) {
    const StepSequence& sequence = batch.sequences[i];
    const KeyGates* gates = GatesOf(sequence, layer);
    if (gates == nullptr) continue;
    const int64_t rows = sequence.row_end - sequence.row_begin;
    const int64_t columns = GateColumns(*sequence.soft_prompt);
    const FloatRows own{next, rows, columns, columns};
    next += rows * columns;
    ActivationRows read = normed.Slice(sequence.row_begin, sequence.row_end);
    if (!gates->reads_normed) {
      read = layer_in_.Slice(0, rows);
      backend_.Convert(space_.residual.Slice(sequence.row_begin, sequence.row_end), read);
    }
    FindGates(*gates, read,
              own.Columns(sequence.soft_prompt->padding, sequence.soft_prompt->num_tokens));
    sequences_[i].key_gates = own;
  }
}

void Decoder::FindGates(const KeyGates& gates, ActivationRows read, FloatRows to) {
  for (int64_t begin = 0; begin < read.rows; begin += kStoredRows) {
    const int64_t end = std::min(begin + kStoredRows, read.rows);
    const FloatRows scores = gate_scores_.Slice(0, end - begin).Columns(0, to.cols);
    backend_.Zero(scores);
    const DeltaSegment all{0, scores.rows, 0, gates.weight.get()};
    backend_.Apply(std::span(&all, 1), read.Slice(begin, end), scores);
    backend_.Finish();
    Sigmoid(gates.bias, scores);
    for (int64_t row = begin; row < end; ++row) {
      std::copy_n(scores.Row(row - begin), to.cols, to.Row(row));
    }
  }
}

void Decoder::FindHiddenStates(const StepBatch& batch) {
  const auto count = static_cast<int64_t>(batch.hidden_rows.size());
  hidden_ = space_.hidden.Slice(0, count);
  if (count == 0) return;
  const FloatRows read = space_.sampled.Slice(0, count);
  backend_.GatherRows(space_.residual.Slice(0, batch.num_rows()), batch.hidden_rows, read);
  Norm(-1, NormSite::kFinal, SegmentsAmong(batch.hidden_rows, batch.segments), read,
       {hidden_.data, DType::kF32, count, hidden_.cols, hidden_.stride});
}

FloatRows Decoder::Head(const StepBatch& batch) {
  const auto samples = static_cast<int64_t>(batch.sample_rows.size());
  const FloatRows logits = space_.logits.Slice(0, samples);
  if (samples == 0) return logits;
  const FloatRows sampled = space_.sampled.Slice(0, samples);
  const ActivationRows head_in = space_.head_in.Slice(0, samples);
  backend_.GatherRows(space_.residual.Slice(0, batch.num_rows()), batch.sample_rows, sampled);
  const auto segments = SegmentsAmong(batch.sample_rows, batch.segments);
  Norm(-1, NormSite::kFinal, segments, sampled, head_in);
  Observe(spec_.num_layers, SiteGroup::kHead, head_in);
  linear_.Apply({weights_.head.get(), nullptr}, {spec_.num_layers, SiteGroup::kHead, false, {}},
                segments, head_in, logits);
  return logits;
}

std::span<const StepSegment> Decoder::SegmentsAmong(std::span<const int32_t> rows,
                                                    std::span<const StepSegment> segments) {
  some_segments_.clear();
  for (const StepSegment& segment : segments) {
    const auto begin = std::lower_bound(rows.begin(), rows.end(), segment.row_begin);
    const auto end = std::lower_bound(begin, rows.end(), segment.row_end);
    if (begin == end) continue;
    some_segments_.push_back({segment.adapter, begin - rows.begin(), end - rows.begin()});
  }
  return some_segments_;
}

NormArgs Decoder::NormOf(const NormWeights& weights) const {
  return {spec_.norm, spec_.norm_eps, weights.weight.data(),
          weights.bias.empty() ? nullptr : weights.bias.data()};
}

}  // namespace polyad
