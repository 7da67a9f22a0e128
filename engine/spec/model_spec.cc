#include "engine/spec/model_spec.h"

#include <cmath>
#include <numbers>

namespace polyad {

namespace {

float Llama3Frequency(float frequency, const RopeSpec& rope) {
  const auto factor = static_cast<float>(rope.factor);
  const auto low = static_cast<float>(rope.low_freq_factor);
  const auto high = static_cast<float>(rope.high_freq_factor);
  const auto original = static_cast<float>(rope.original_max_position);
  const float wavelength = static_cast<float>(2.0 * std::numbers::pi) / frequency;
  if (wavelength > original / low) return frequency / factor;
  if (wavelength < original / high) return frequency;
  const float smooth = (original / wavelength - low) / (high - low);
  return (1.0f - smooth) * (frequency / factor) + smooth * frequency;
}

}  // namespace

std::vector<float> RopeFrequencies(const RopeSpec& rope) {
  std::vector<float> frequencies;
  for (int64_t i = 0; i < rope.rotary_dim / 2; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(rope.rotary_dim);
    float frequency = 1.0f / std::pow(static_cast<float>(rope.theta), exponent);
    switch (rope.scaling) {
      case RopeScaling::kNone:
        break;
      case RopeScaling::kLinear:
        frequency /= static_cast<float>(rope.factor);
        break;
      case RopeScaling::kLlama3:
        frequency = Llama3Frequency(frequency, rope);
        break;
    }
    if (!rope.frequency_factors.empty()) {
      frequency /= rope.frequency_factors[static_cast<size_t>(i)];
    }
    frequencies.push_back(frequency);
  }
  return frequencies;
}

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
  if (spec.head_dim % 2 != 0 && spec.rope.rotary_dim > 0) {
    return InvalidArgument("model: head dimension: expected an even number, got %d", spec.head_dim);
  }
  if (spec.rope.rotary_dim != 0 && spec.rope.rotary_dim != spec.head_dim) {
    return Unimplemented("model: rotary embedding of %d of a head's %d elements is not supported",
                         spec.rope.rotary_dim, spec.head_dim);
  }
  if (spec.rope.scaling == RopeScaling::kLlama3 &&
      !(spec.rope.high_freq_factor > spec.rope.low_freq_factor)) {
    return InvalidArgument("model: rope high_freq_factor %g must exceed low_freq_factor %g",
                           spec.rope.high_freq_factor, spec.rope.low_freq_factor);
  }
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
