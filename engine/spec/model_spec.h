#pragma once

// A model as data: one decoder (engine/model) runs every architecture from these fields, and
// nothing else tells them apart. Readers of a configuration (hf_config.h, gguf_spec.h) fill it and
// refuse what it cannot express. Plain values, immutable after loading, shared freely between
// threads. Sizes are counts of elements; ids are token ids.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/status.h"
#include "kernels/api/backend.h"

namespace polyad {

enum class Architecture { kLlama, kMistral, kQwen2, kQwen3, kGpt2 };

// Rotary embedding (rope_frequencies.h): how far a pair of a head turns from position to position.
enum class RopeScaling { kNone, kLinear, kLlama3, kDynamic, kYarn, kLongRope };

struct RopeSpec {
  double theta = 10000.0;
  int64_t rotary_dim = 0;  // of a head, its first elements; 0: the model has no rotary embedding
  RopeScaling scaling = RopeScaling::kNone;
  double factor = 1.0;
  double low_freq_factor = 1.0;          // kLlama3
  double high_freq_factor = 4.0;         // kLlama3
  double beta_fast = 32.0;               // kYarn
  double beta_slow = 1.0;                // kYarn
  bool whole_pairs = true;               // kYarn: its blend begins and ends at whole pairs
  double attention_factor = 1.0;         // what cos and sin are multiplied by
  int64_t original_max_position = 0;     // what it was trained on before it was scaled
  std::vector<float> frequency_factors;  // empty, or [rotary_dim / 2]
  std::vector<float> long_factors;       // kLongRope: for contexts beyond the original

  friend bool operator==(const RopeSpec&, const RopeSpec&) = default;
};

// What a request gets when it does not say. Absent means the server's own default.
struct GenerationDefaults {
  std::optional<bool> do_sample;
  std::optional<double> temperature;
  std::optional<double> top_p;
  std::optional<double> min_p;
  std::optional<int64_t> top_k;
  std::optional<double> repetition_penalty;
};

struct ModelSpec {
  std::string name;  // as the files call it; may be empty
  Architecture architecture = Architecture::kLlama;

  int64_t hidden_size = 0;
  int64_t num_layers = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;
  int64_t intermediate_size = 0;
  int64_t vocab_size = 0;
  int64_t max_position = 0;  // the longest context, scaled

  NormKind norm = NormKind::kRms;
  float norm_eps = 1e-6f;
  ActivationKind activation = ActivationKind::kSilu;
  bool gated_mlp = true;   // down(act(gate(x)) * up(x)); else fc_out(act(fc_in(x)))
  bool fused_qkv = false;  // the file holds q|k|v as one matrix
  bool qkv_bias = false;
  bool o_bias = false;
  bool mlp_bias = false;
  bool qk_norm = false;            // RMS norm of each head of q and k before rotation
  bool learned_positions = false;  // a position table is added to the embedding
  bool tie_embeddings = false;     // the head is the embedding table
  float attention_scale = 1.0f;
  RopeSpec rope;

  // Keys a row may see, itself included; 0: all. One entry for each layer.
  std::vector<int64_t> sliding_window;

  std::optional<int32_t> bos_id;
  std::vector<int32_t> eos_ids;  // any of them ends a generation
  GenerationDefaults generation;

  std::vector<std::string> warnings;  // what was seen and ignored, for the log and `inspect`

  int64_t QueryWidth() const { return num_heads * head_dim; }
  int64_t KvWidth() const { return num_kv_heads * head_dim; }
};

std::string ArchitectureName(Architecture architecture);  // "llama"

// Bounds of every dimension, shared by all readers.
struct SpecLimits {
  static constexpr int64_t kHidden = 65536;
  static constexpr int64_t kLayers = 1024;
  static constexpr int64_t kHeads = 1024;
  static constexpr int64_t kHeadDim = 1024;
  static constexpr int64_t kIntermediate = int64_t{1} << 20;
  static constexpr int64_t kVocab = int64_t{1} << 21;
  static constexpr int64_t kPositions = int64_t{1} << 24;
};

// The relations between dimensions that any decoder needs: heads shared evenly, an even head,
// finite positive scales.
Status CheckSpec(const ModelSpec& spec);

// Keeps ids inside the vocabulary; another becomes a warning of the spec ("eos_token_id 50256 is
// outside ...").
bool KeepTokenId(const std::string& key, int64_t id, ModelSpec& spec);

}  // namespace polyad
