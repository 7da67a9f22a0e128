#pragma once

// The decoder stack over one step's rows. Forward reads like the figure in the papers: embed, then
// per layer norm, attention, residual, norm, mlp, residual, then norm and head for the rows that
// sample. Architectures differ only in ModelSpec's data. Working memory is sized once for the
// largest step. Engine thread only.

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/base/status.h"
#include "engine/model/adapted_linear.h"
#include "engine/model/input_observer.h"
#include "engine/model/scaling_pass_runner.h"
#include "engine/model/step_batch.h"
#include "engine/model/weights.h"
#include "engine/spec/model_spec.h"
#include "engine/spec/rope_tables.h"
#include "kernels/api/backend.h"

namespace polyad {

// Rows of intermediate values, [max_step_tokens, width], reused by every step.
struct Workspace {
  FloatRows residual;        // [tokens, hidden] fp32 stream
  ActivationRows normed;     // [tokens, hidden]
  FloatRows qkv;             // [tokens, (heads + 2 kv heads) * head_dim]
  ActivationRows attended;   // [tokens, heads * head_dim]
  FloatRows mlp;             // [tokens, intermediate or 2 * intermediate]
  ActivationRows activated;  // [tokens, intermediate]
  FloatRows sampled;         // [samples, hidden]
  ActivationRows head_in;    // [samples, hidden]
  FloatRows logits;          // [samples, vocab]
  FloatRows hidden;          // [hidden rows, hidden]
  std::vector<std::shared_ptr<void>> memory;
};

class Decoder {
 public:
  static StatusOr<std::unique_ptr<Decoder>> Create(const ModelSpec& spec, const Weights& weights,
                                                   Backend& backend, int64_t max_context,
                                                   int64_t max_step_tokens);

  const RopeTables& rope() const { return rope_; }
  void Observe(InputObserver* observer) { observer_ = observer; }  // null: nobody

  // Logits [sample_rows, vocab] of the batch; K/V of every row are in the cache afterwards.
  FloatRows Forward(const StepBatch& batch, KvStorage& kv);
  // [hidden_rows, hidden] of the last Forward's batch, in fp32 whatever activations are.
  FloatRows hidden_states() const { return hidden_; }

 private:
  // Rows that are rotated alike: by the same tables, after the same norms of heads.
  struct Rotation {
    int64_t row_begin = 0;
    int64_t row_end = 0;
    RopeTable rope;
    const AdapterVersion* norms = nullptr;  // null: the base's
  };

  Decoder(const ModelSpec& spec, const Weights& weights, Backend& backend, int64_t max_context);
  Status AllocateWorkspace(int64_t max_step_tokens);
  void FindCoefficients(const StepBatch& batch, KvStorage& kv);
  void RunLayers(const StepBatch& batch, KvStorage& kv);
  void StorePrefixes(const StepBatch& batch, KvStorage& kv);
  void StoreNothing(int64_t layer, std::span<const int64_t> slots, KvStorage& kv);
  void Store(int64_t layer, FloatRows rows, std::span<const int64_t> slots, KvStorage& kv);
  void Embed(const StepBatch& batch, FloatRows residual);
  void StoreGatedPrefixes(int64_t layer, const StepBatch& batch, ActivationRows normed,
                          KvStorage& kv);
  void FindSlots(const StepSequence& sequence, int64_t first, int64_t end, const StepBatch& batch);
  void Layer(int64_t layer, const StepBatch& batch, KvStorage& kv);
  void HidePrefixes(int64_t layer, const StepBatch& batch);
  void GateKeys(int64_t layer, const StepBatch& batch, ActivationRows normed);
  void FindGates(const KeyGates& gates, ActivationRows read, FloatRows to);
  void Observe(int64_t layer, SiteGroup group, ActivationRows x);
  void Attend(int64_t layer, const StepBatch& batch, KvStorage& kv);
  void AddGatedPrefixes(int64_t layer, const StepBatch& batch, bool after_projection,
                        ActivationRows out);
  void FindRotations(const StepBatch& batch);
  void RotateAndStore(int64_t layer, const StepBatch& batch, KvStorage& kv);
  void FindHiddenStates(const StepBatch& batch);
  FloatRows Head(const StepBatch& batch);
  // The base's norm for every row, then an adapter's own where it replaces it.
  void Norm(int64_t layer, NormSite site, std::span<const StepSegment> segments, FloatRows x,
            ActivationRows y);
  NormArgs NormOf(const NormWeights& weights) const;
  // The segments' rows among `rows`, which ascend.
  std::span<const StepSegment> SegmentsAmong(std::span<const int32_t> rows,
                                             std::span<const StepSegment> segments);

  const ModelSpec& spec_;
  const Weights& weights_;
  Backend& backend_;
  RopeTables rope_;
  AdaptedLinear linear_;
  ScalingPassRunner scaling_;
  Workspace space_;
  InputObserver* observer_ = nullptr;
  std::vector<AttentionSequence> sequences_;  // reused between layers
  std::vector<Rotation> rotations_;           // likewise
  std::vector<StepSegment> some_segments_;    // reused between uses
  FloatRows hidden_;                          // of the last step
  std::vector<int32_t> prompt_rows_;          // reused between soft prompts
  std::vector<int64_t> prefix_slots_;         // likewise
  std::vector<int32_t> positions_;            // likewise
  FloatRows stored_rows_;                     // [rows, 2 * kv width] of keys and values
  ActivationRows layer_in_;                   // [tokens, hidden] a stream that gates of keys read
  FloatRows gate_scores_;                     // [a few rows, kMaxGatedKeys] what gates are made of
  std::vector<float> key_gates_;              // a layer's, of all rows that have some
};

}  // namespace polyad
