#pragma once

// A soft prompt: p virtual tokens at the head of every sequence of an adapter, given as embeddings
// (prompt tuning; they run through the layers like text) or as each layer's keys and values (prefix
// tuning; nothing is computed for them, they are stored as they are: no rotation, no norm). A
// sequence holds virtual token i as the id -1 - i; they have blocks, chunks and cached prefixes
// like text, count against the context, and are nobody's prompt or output.
//
// A prompt that every request of the adapter shares fills whole blocks: empty slots stand before
// it, hidden from attention, so that its last token ends a block and the request's first token
// begins one. Its blocks then are all its own, computed once and copied for nobody. Immutable,
// owned by its AdapterVersion. Formats: zoo section 5.7.

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/base/status.h"
#include "engine/spec/model_spec.h"
#include "kernels/api/backend.h"

namespace polyad {

constexpr int32_t VirtualToken(int64_t index) { return static_cast<int32_t>(-1 - index); }
constexpr int64_t VirtualIndex(int32_t token) { return -1 - static_cast<int64_t>(token); }

// What multiplies one layer's stored keys and values, step by step: sigmoid(row . x + bias) of the
// layer's normed attention input, meaned over a segment (SegmentGate in adapter_program.h).
struct PrefixGate {
  std::vector<float> key_weight;  // [hidden]; empty: no gate
  std::vector<float> value_weight;
  float key_bias = 0.0f;
  float value_bias = 0.0f;
};

// What multiplies one layer's stored keys and values for each row that attends to them: for key j,
// sigmoid(weight[j] . h + bias[j]), with h the row's stream as it enters the layer, or that normed
// (APT: Zhang et al. 2023).
inline constexpr int64_t kMaxGatedKeys = 4096;  // of a layer
struct KeyGateTensors {
  std::vector<float> weight;  // [num_tokens, hidden]; empty: no gates
  std::vector<float> bias;    // [num_tokens]
  bool reads_normed = false;
};
struct KeyGates {
  std::shared_ptr<const PackedDelta> weight;  // null: no gates
  std::vector<float> bias;
  bool reads_normed = false;
};

// Of several prompts of one adapter, the one that a request runs with: embeddings from row `first`
// on, times `scale`.
struct PromptChoice {
  int64_t first = 0;
  float scale = 1.0f;
};

// What a family lowers to; exactly one of `embeddings` and `kv` is filled.
struct SoftPromptTensors {
  int64_t num_tokens = 0;
  std::vector<float> embeddings;       // [num_prompts, num_tokens, hidden]
  std::vector<std::vector<float>> kv;  // per layer [num_tokens, 2 * kv width]: a token's keys, then
                                       // its values; empty: the layer does not see the prefix
  bool shifts_positions =
      true;  // text starts at position num_tokens (PEFT), else at 0 (AdapterHub)
  std::vector<PrefixGate> gates = {};          // empty, or one for each layer
  std::vector<KeyGateTensors> key_gates = {};  // likewise
  int64_t num_prompts = 1;
  std::vector<float> token_scores;  // [vocab, num_prompts] of several, for SoftPrompt::Choose
};

// The same in the backend's memory.
struct SoftPrompt {
  int64_t num_tokens = 0;
  int64_t padding = 0;  // empty slots before the first token
  bool shifts_positions = true;
  bool stores_kv = false;
  FloatRows embeddings;             // [num_prompts * num_tokens, hidden] unless stores_kv
  std::vector<FloatRows> kv;        // per layer [num_tokens, 2 * kv width] if stores_kv
  std::vector<PrefixGate> gates;    // empty, or one for each layer
  std::vector<KeyGates> key_gates;  // likewise
  std::shared_ptr<void> memory;     // of all rows
  int64_t bytes = 0;                // fp32, of everything but key_gates
  DeltaCost gate_cost;              // of key_gates
  int64_t num_prompts = 1;
  std::vector<float> token_scores;  // [vocab, num_prompts]; empty: there is one prompt

  // The prompt with the largest score, times its share of the softmax of all scores; a prompt's
  // score is the mean of those of the request's tokens (SMoP: Choi et al. 2023). The lower prompt
  // wins ties.
  PromptChoice Choose(std::span<const int32_t> tokens) const;

  // Sets the padding of a prompt that is shared.
  void FillBlocks() {
    if (is_shared()) padding = (kBlockTokens - num_tokens % kBlockTokens) % kBlockTokens;
  }
  // Places that it takes at the head of a sequence.
  int64_t num_slots() const { return padding + num_tokens; }
  // Whether every request of the adapter begins with the same keys and values.
  bool is_shared() const { return gates.empty() && num_prompts == 1; }
  // Position of what stands at `index` of the sequence. Never negative: an unshifted prefix is not
  // rotated, and its own positions mean nothing, nor do those of empty slots.
  int64_t PositionOf(int64_t index) const {
    return std::max<int64_t>(0, index - (shifts_positions ? padding : num_slots()));
  }
};

// INVALID_ARGUMENT where a size is not the model's; UNIMPLEMENTED for an unshifted prefix beside a
// sliding window.
StatusOr<std::shared_ptr<const SoftPrompt>> PackSoftPrompt(const SoftPromptTensors& tensors,
                                                           const ModelSpec& spec, Backend& backend);

}  // namespace polyad
