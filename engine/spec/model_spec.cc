#include "engine/spec/model_spec.h"

#include "engine/spec/rope_frequencies.h"

namespace polyad {

std::string ArchitectureName(Architecture architecture) {
  switch (architecture) {
    case Architecture::kLlama:
      return "llama";
    case Architecture::kMistral:
      return "mistral";
    case Architecture::kQwen2:
      return "qwen2";
    case Architecture::kQwen3:
      return "qwen3";
    case Architecture::kGpt2:
      return "gpt2";
  }
  return "?";
}

Status CheckSpec(const ModelSpec& spec) {
  if (spec.num_heads % spec.num_kv_heads != 0) {
    return InvalidArgument("model: %d attention heads cannot share %d key/value heads evenly",
                           spec.num_heads, spec.num_kv_heads);
  }
  if (spec.head_dim > SpecLimits::kHeadDim) {
    return InvalidArgument("model: head dimension: expected at most %d, got %d",
                           SpecLimits::kHeadDim, spec.head_dim);
  }
  POLYAD_RETURN_IF_ERROR(CheckRope(spec.rope, spec.head_dim));
  if (static_cast<int64_t>(spec.sliding_window.size()) != spec.num_layers) {
    return InvalidArgument("model: expected a window for each of %d layers, got %d",
                           spec.num_layers, spec.sliding_window.size());
  }
  return absl::OkStatus();
}

bool KeepTokenId(const std::string& key, int64_t id, ModelSpec& spec) {
  if (id >= 0 && id < spec.vocab_size) return true;
  spec.warnings.push_back(absl::StrFormat("%s %d is outside the vocabulary of %d and is ignored",
                                          key, id, spec.vocab_size));
  return false;
}

}  // namespace polyad
