#include "engine/spec/gguf_spec.h"

#include <cmath>
#include <string>
#include <string_view>

#include "engine/io/quote.h"
#include "engine/spec/gguf_rope.h"

namespace polyad {

namespace {

struct ArchitectureRow {
  std::string_view name;
  Architecture architecture;
};

constexpr ArchitectureRow kArchitectures[] = {
    {"llama", Architecture::kLlama},
    {"qwen2", Architecture::kQwen2},
    {"qwen3", Architecture::kQwen3},
    {"gpt2", Architecture::kGpt2},
};

// Metadata under one architecture's prefix ("llama.block_count").
class ArchitectureKeys {
 public:
  ArchitectureKeys(const GgufMetadata& metadata, std::string prefix)
      : metadata_(metadata), prefix_(std::move(prefix)) {}

  const GgufMetadata& metadata() const { return metadata_; }
  const std::string& prefix() const { return prefix_; }
  std::string Key(const std::string& suffix) const { return prefix_ + "." + suffix; }
  bool Has(const std::string& suffix) const { return metadata_.Has(Key(suffix)); }

  StatusOr<int64_t> Int(const std::string& suffix, int64_t max) const {
    return metadata_.Int(Key(suffix), 1, max);
  }
  StatusOr<int64_t> IntOr(const std::string& suffix, int64_t absent, int64_t max) const {
    return metadata_.IntOr(Key(suffix), absent, 1, max);
  }
  // A number for all layers, or a list of equal ones.
  StatusOr<int64_t> SameForAllLayers(const std::string& suffix, int64_t max) const {
    const std::string key = Key(suffix);
    const auto it = metadata_.values().find(key);
    if (it == metadata_.values().end()) return metadata_.WrongType(key, "an integer");
    const auto* list = std::get_if<std::vector<int64_t>>(&it->second);
    if (list == nullptr) return metadata_.Int(key, 1, max);
    if (list->empty()) return metadata_.WrongType(key, "an integer");
    for (const int64_t value : *list) {
      if (value != list->front() || value < 1 || value > max) {
        return Unimplemented("%s: values that differ between layers are not supported", key);
      }
    }
    return list->front();
  }

 private:
  const GgufMetadata& metadata_;
  const std::string prefix_;
};

Status RefuseUnserved(const ArchitectureKeys& keys) {
  for (const char* suffix : {"expert_count", "expert_used_count"}) {
    POLYAD_ASSIGN_OR_RETURN(const int64_t experts,
                            keys.metadata().IntOr(keys.Key(suffix), 0, 0, 1 << 20));
    if (experts > 0) {
      return Unimplemented("key '%s': %d experts are not supported", keys.Key(suffix), experts);
    }
  }
  static constexpr const char* kScales[] = {"attention.scale",        "residual_scale",
                                            "embedding_scale",        "logit_scale",
                                            "attn_logit_softcapping", "final_logit_softcapping"};
  for (const char* suffix : kScales) {
    POLYAD_ASSIGN_OR_RETURN(const double scale,
                            keys.metadata().NumberOr(keys.Key(suffix), 0.0, -1e9, 1e9));
    if (scale != 0.0) {
      return Unimplemented("key '%s': %g is not supported", keys.Key(suffix), scale);
    }
  }
  return absl::OkStatus();
}

Status ReadSizes(const GgufFile& file, const ArchitectureKeys& keys, ModelSpec& spec) {
  POLYAD_ASSIGN_OR_RETURN(spec.hidden_size, keys.Int("embedding_length", SpecLimits::kHidden));
  POLYAD_ASSIGN_OR_RETURN(spec.num_layers, keys.Int("block_count", SpecLimits::kLayers));
  POLYAD_ASSIGN_OR_RETURN(spec.max_position, keys.Int("context_length", SpecLimits::kPositions));
  POLYAD_ASSIGN_OR_RETURN(spec.intermediate_size,
                          keys.SameForAllLayers("feed_forward_length", SpecLimits::kIntermediate));
  POLYAD_ASSIGN_OR_RETURN(spec.num_heads,
                          keys.SameForAllLayers("attention.head_count", SpecLimits::kHeads));
  spec.num_kv_heads = spec.num_heads;
  if (keys.Has("attention.head_count_kv")) {
    POLYAD_ASSIGN_OR_RETURN(spec.num_kv_heads,
                            keys.SameForAllLayers("attention.head_count_kv", SpecLimits::kHeads));
  }
  const TensorInfo* table = file.Find("token_embd.weight");
  if (table == nullptr || table->shape.size() != 2 || table->shape[0] > SpecLimits::kVocab) {
    return InvalidArgument("tensor 'token_embd.weight': expected [vocabulary of at most %d, %d]",
                           SpecLimits::kVocab, spec.hidden_size);
  }
  spec.vocab_size = table->shape[0];
  return absl::OkStatus();
}

Status ReadHeadDim(const ArchitectureKeys& keys, ModelSpec& spec) {
  const bool even_split = spec.hidden_size % spec.num_heads == 0;
  if (!keys.Has("attention.key_length") && !even_split) {
    return InvalidArgument("key '%s': expected with %d heads over %d elements",
                           keys.Key("attention.key_length"), spec.num_heads, spec.hidden_size);
  }
  POLYAD_ASSIGN_OR_RETURN(
      spec.head_dim,
      keys.IntOr("attention.key_length", spec.hidden_size / spec.num_heads, SpecLimits::kHeadDim));
  POLYAD_ASSIGN_OR_RETURN(
      const int64_t value_length,
      keys.IntOr("attention.value_length", spec.head_dim, SpecLimits::kHeadDim));
  if (spec.head_dim > SpecLimits::kHeadDim || value_length != spec.head_dim) {
    return Unimplemented("key '%s': keys of %d and values of %d elements are not supported",
                         keys.Key("attention.value_length"), spec.head_dim, value_length);
  }
  spec.attention_scale = 1.0f / std::sqrt(static_cast<float>(spec.head_dim));
  return absl::OkStatus();
}

Status ReadLlamaLike(const GgufFile& file, const ArchitectureKeys& keys, ModelSpec& spec) {
  POLYAD_ASSIGN_OR_RETURN(
      const double eps,
      keys.metadata().NumberOr(keys.Key("attention.layer_norm_rms_epsilon"), 1e-6, 0.0, 1.0));
  spec.norm = NormKind::kRms;
  spec.norm_eps = static_cast<float>(eps);
  spec.activation = ActivationKind::kSilu;
  spec.qk_norm = spec.architecture == Architecture::kQwen3;
  POLYAD_RETURN_IF_ERROR(ReadGgufRope(file, keys.prefix(), spec));
  POLYAD_ASSIGN_OR_RETURN(
      const int64_t window,
      keys.metadata().IntOr(keys.Key("attention.sliding_window"), 0, 0, SpecLimits::kPositions));
  spec.sliding_window.assign(static_cast<size_t>(spec.num_layers), window);
  spec.qkv_bias = file.Find("blk.0.attn_q.bias") != nullptr;
  spec.o_bias = file.Find("blk.0.attn_output.bias") != nullptr;
  spec.mlp_bias = file.Find("blk.0.ffn_gate.bias") != nullptr;
  return absl::OkStatus();
}

Status ReadGpt2(const ArchitectureKeys& keys, ModelSpec& spec) {
  POLYAD_ASSIGN_OR_RETURN(
      const double eps,
      keys.metadata().NumberOr(keys.Key("attention.layer_norm_epsilon"), 1e-5, 0.0, 1.0));
  spec.norm = NormKind::kLayer;
  spec.norm_eps = static_cast<float>(eps);
  spec.activation = ActivationKind::kGeluTanh;
  spec.gated_mlp = false;
  spec.fused_qkv = spec.qkv_bias = spec.o_bias = spec.mlp_bias = true;
  spec.learned_positions = true;
  spec.sliding_window.assign(static_cast<size_t>(spec.num_layers), 0);
  return absl::OkStatus();
}

StatusOr<std::optional<int32_t>> OptionalId(const GgufMetadata& metadata, const std::string& key) {
  if (!metadata.Has(key)) return std::optional<int32_t>();
  POLYAD_ASSIGN_OR_RETURN(const int64_t id, metadata.Int(key, -1, 0xffffffff));
  if (id < 0 || id >= SpecLimits::kVocab) return std::optional<int32_t>();  // "none" in files
  return std::optional<int32_t>(static_cast<int32_t>(id));
}

StatusOr<std::optional<bool>> OptionalBool(const GgufMetadata& metadata, const std::string& key) {
  if (!metadata.Has(key)) return std::optional<bool>();
  POLYAD_ASSIGN_OR_RETURN(const bool value, metadata.BoolOr(key, false));
  return std::optional<bool>(value);
}

// End of text and, for chat models, end of turn.
Status ReadSpecialIds(const GgufMetadata& metadata, ModelSpec& spec) {
  POLYAD_ASSIGN_OR_RETURN(const auto bos, OptionalId(metadata, "tokenizer.ggml.bos_token_id"));
  if (bos.has_value() && KeepTokenId("bos_token_id", *bos, spec)) spec.bos_id = bos;
  for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"}) {
    POLYAD_ASSIGN_OR_RETURN(const auto id, OptionalId(metadata, key));
    if (!id.has_value() || !KeepTokenId(key, *id, spec)) continue;
    if (spec.eos_ids.empty() || spec.eos_ids.back() != *id) spec.eos_ids.push_back(*id);
  }
  return absl::OkStatus();
}

Status CheckLists(const GgufTokenizerMetadata& tokenizer) {
  const size_t num_tokens = tokenizer.tokens.size();
  if (!tokenizer.scores.empty() && tokenizer.scores.size() != num_tokens) {
    return InvalidArgument("tokenizer.ggml.scores: expected %d entries, got %d", num_tokens,
                           tokenizer.scores.size());
  }
  if (!tokenizer.token_types.empty() && tokenizer.token_types.size() != num_tokens) {
    return InvalidArgument("tokenizer.ggml.token_type: expected %d entries, got %d", num_tokens,
                           tokenizer.token_types.size());
  }
  return absl::OkStatus();
}

Status ReadTokenLists(const GgufMetadata& metadata, GgufTokenizerMetadata& tokenizer) {
  POLYAD_ASSIGN_OR_RETURN(tokenizer.tokens, metadata.Strings("tokenizer.ggml.tokens"));
  POLYAD_ASSIGN_OR_RETURN(tokenizer.merges, metadata.Strings("tokenizer.ggml.merges"));
  POLYAD_ASSIGN_OR_RETURN(const auto scores, metadata.Numbers("tokenizer.ggml.scores"));
  tokenizer.scores.assign(scores.begin(), scores.end());
  POLYAD_ASSIGN_OR_RETURN(const auto types, metadata.Ints("tokenizer.ggml.token_type"));
  for (const int64_t type : types) {
    if (type < 0 || type > 255) {
      return InvalidArgument("tokenizer.ggml.token_type: expected types in [0, 255], got %d", type);
    }
    tokenizer.token_types.push_back(static_cast<int32_t>(type));
  }
  return CheckLists(tokenizer);
}

}  // namespace

StatusOr<ModelSpec> SpecFromGguf(const GgufFile& file) {
  const GgufMetadata& metadata = file.metadata();
  POLYAD_ASSIGN_OR_RETURN(const std::string name, metadata.String("general.architecture"));
  ModelSpec spec;
  bool known = false;
  for (const ArchitectureRow& row : kArchitectures) {
    if (name != row.name) continue;
    spec.architecture = row.architecture;
    known = true;
  }
  if (!known) return Unimplemented("general.architecture: %s is not supported", Quote(name));
  POLYAD_ASSIGN_OR_RETURN(spec.name, metadata.StringOr("general.name", ""));
  const ArchitectureKeys keys(metadata, name);
  POLYAD_RETURN_IF_ERROR(RefuseUnserved(keys));
  POLYAD_RETURN_IF_ERROR(ReadSizes(file, keys, spec));
  POLYAD_RETURN_IF_ERROR(ReadHeadDim(keys, spec));
  spec.tie_embeddings = file.Find("output.weight") == nullptr;
  if (spec.architecture == Architecture::kGpt2) {
    POLYAD_RETURN_IF_ERROR(ReadGpt2(keys, spec));
  } else {
    POLYAD_RETURN_IF_ERROR(ReadLlamaLike(file, keys, spec));
  }
  POLYAD_RETURN_IF_ERROR(ReadSpecialIds(metadata, spec));
  POLYAD_RETURN_IF_ERROR(CheckSpec(spec));
  return spec;
}

StatusOr<GgufTokenizerMetadata> TokenizerFromGguf(const GgufFile& file) {
  const GgufMetadata& metadata = file.metadata();
  GgufTokenizerMetadata tokenizer;
  POLYAD_ASSIGN_OR_RETURN(tokenizer.model, metadata.StringOr("tokenizer.ggml.model", ""));
  POLYAD_ASSIGN_OR_RETURN(tokenizer.pre, metadata.StringOr("tokenizer.ggml.pre", ""));
  POLYAD_RETURN_IF_ERROR(ReadTokenLists(metadata, tokenizer));
  const std::string prefix = "tokenizer.ggml.";
  POLYAD_ASSIGN_OR_RETURN(tokenizer.bos_id, OptionalId(metadata, prefix + "bos_token_id"));
  POLYAD_ASSIGN_OR_RETURN(tokenizer.eos_id, OptionalId(metadata, prefix + "eos_token_id"));
  POLYAD_ASSIGN_OR_RETURN(tokenizer.eot_id, OptionalId(metadata, prefix + "eot_token_id"));
  POLYAD_ASSIGN_OR_RETURN(tokenizer.unknown_id, OptionalId(metadata, prefix + "unknown_token_id"));
  POLYAD_ASSIGN_OR_RETURN(tokenizer.padding_id, OptionalId(metadata, prefix + "padding_token_id"));
  POLYAD_ASSIGN_OR_RETURN(tokenizer.add_bos, OptionalBool(metadata, prefix + "add_bos_token"));
  POLYAD_ASSIGN_OR_RETURN(tokenizer.add_eos, OptionalBool(metadata, prefix + "add_eos_token"));
  POLYAD_ASSIGN_OR_RETURN(tokenizer.add_space_prefix,
                          OptionalBool(metadata, prefix + "add_space_prefix"));
  POLYAD_ASSIGN_OR_RETURN(tokenizer.chat_template,
                          metadata.StringOr("tokenizer.chat_template", ""));
  return tokenizer;
}

}  // namespace polyad
