#include "engine/spec/hf_config.h"

#include <cmath>
#include <span>
#include <string_view>

#include "engine/io/json.h"
#include "engine/io/quote.h"
#include "engine/spec/hf_rope.h"
#include "engine/spec/quantization_config.h"
#include "engine/spec/rope_frequencies.h"

namespace polyad {

namespace {

constexpr char kConfigName[] = "config.json";
constexpr char kGenerationName[] = "generation_config.json";
constexpr double kLargest = 1e30;

struct ArchitectureRow {
  std::string_view model_type;
  std::string_view class_name;
  Architecture architecture;
};

constexpr ArchitectureRow kArchitectures[] = {
    {"llama", "LlamaForCausalLM", Architecture::kLlama},
    {"mistral", "MistralForCausalLM", Architecture::kMistral},
    {"qwen2", "Qwen2ForCausalLM", Architecture::kQwen2},
    {"qwen3", "Qwen3ForCausalLM", Architecture::kQwen3},
    {"gpt2", "GPT2LMHeadModel", Architecture::kGpt2},
};

// model_type decides, as it does for AutoModelForCausalLM; the class, where named, must agree.
StatusOr<Architecture> ReadArchitecture(const JsonFields& config) {
  POLYAD_ASSIGN_OR_RETURN(const std::string model_type, config.StringOr("model_type", ""));
  POLYAD_ASSIGN_OR_RETURN(const auto classes, config.StringsOr("architectures", {}));
  const std::string class_name = classes.empty() ? "" : classes[0];
  if (model_type.empty() && class_name.empty()) {
    return InvalidArgument("%s: neither model_type nor architectures is given", kConfigName);
  }
  for (const ArchitectureRow& row : kArchitectures) {
    if (!model_type.empty() && model_type != row.model_type) continue;
    if (class_name.empty() || class_name == row.class_name) return row.architecture;
  }
  return Unimplemented("%s: architecture %s (model_type %s) is not supported", kConfigName,
                       Quote(class_name), Quote(model_type));
}

struct ActivationName {
  std::string_view name;
  ActivationKind kind;
};

constexpr ActivationName kActivations[] = {
    {"silu", ActivationKind::kSilu},          {"swish", ActivationKind::kSilu},
    {"gelu", ActivationKind::kGeluErf},       {"gelu_new", ActivationKind::kGeluTanh},
    {"gelu_fast", ActivationKind::kGeluTanh}, {"gelu_pytorch_tanh", ActivationKind::kGeluTanh},
    {"relu", ActivationKind::kRelu},
};

StatusOr<ActivationKind> ReadActivation(const JsonFields& config, const std::string& key,
                                        const std::string& absent) {
  POLYAD_ASSIGN_OR_RETURN(const std::string name, config.StringOr(key, absent));
  for (const ActivationName& row : kActivations) {
    if (name == row.name) return row.kind;
  }
  return Unimplemented("%s: key '%s': activation %s is not supported", kConfigName, key,
                       Quote(name));
}

// Keys that change the maths when they are true.
Status RefuseIfTrue(const JsonFields& config, std::span<const char* const> keys) {
  for (const char* key : keys) {
    POLYAD_ASSIGN_OR_RETURN(const bool set, config.BoolOr(key, false));
    if (set) return Unimplemented("%s: key '%s': true is not supported", kConfigName, key);
  }
  return absl::OkStatus();
}

Status ReadRmsNorm(const JsonFields& config, ModelSpec& spec) {
  POLYAD_ASSIGN_OR_RETURN(const double eps, config.NumberOr("rms_norm_eps", 1e-6, 0.0, 1.0));
  spec.norm = NormKind::kRms;
  spec.norm_eps = static_cast<float>(eps);
  return absl::OkStatus();
}

struct ShapeDefaults {
  int64_t vocab = 0;
  int64_t hidden = 0;
  int64_t intermediate = 0;
  int64_t kv_heads = 0;  // 0: as many as heads
  int64_t positions = 0;
  int64_t head_dim = 0;  // 0: hidden_size / num_attention_heads
};

ShapeDefaults DefaultsOf(Architecture architecture) {
  switch (architecture) {
    case Architecture::kLlama:
      return {32000, 4096, 11008, 0, 2048, 0};
    case Architecture::kMistral:
      return {32000, 4096, 14336, 8, 131072, 0};
    case Architecture::kQwen2:
      return {151936, 4096, 22016, 32, 32768, 0};
    case Architecture::kQwen3:
      return {151936, 4096, 22016, 32, 32768, 128};
    case Architecture::kGpt2:
      return {};
  }
  return {};
}

// An explicit null means "as many as heads" for key/value heads, an absent key the class's default.
StatusOr<int64_t> ReadKvHeads(const JsonFields& config, int64_t absent, int64_t num_heads) {
  const std::string key = "num_key_value_heads";
  if (config.object().contains(key) && !config.Has(key)) return num_heads;
  return config.IntOr(key, absent == 0 ? num_heads : absent, 1, SpecLimits::kHeads);
}

StatusOr<int64_t> ReadHeadDim(const JsonFields& config, int64_t absent, const ModelSpec& spec) {
  const std::string key = "head_dim";
  if (config.Has(key)) return config.Int(key, 1, SpecLimits::kHeadDim);
  const bool is_null = config.object().contains(key);
  if (absent != 0 && !is_null) return absent;
  if (spec.hidden_size % spec.num_heads != 0) {
    return InvalidArgument("%s: hidden_size %d is no multiple of num_attention_heads %d",
                           kConfigName, spec.hidden_size, spec.num_heads);
  }
  return spec.hidden_size / spec.num_heads;
}

Status ReadShapes(const JsonFields& config, ModelSpec& spec) {
  const ShapeDefaults absent = DefaultsOf(spec.architecture);
  POLYAD_ASSIGN_OR_RETURN(spec.vocab_size,
                          config.IntOr("vocab_size", absent.vocab, 1, SpecLimits::kVocab));
  POLYAD_ASSIGN_OR_RETURN(spec.hidden_size,
                          config.IntOr("hidden_size", absent.hidden, 1, SpecLimits::kHidden));
  POLYAD_ASSIGN_OR_RETURN(
      spec.intermediate_size,
      config.IntOr("intermediate_size", absent.intermediate, 1, SpecLimits::kIntermediate));
  POLYAD_ASSIGN_OR_RETURN(spec.num_layers,
                          config.IntOr("num_hidden_layers", 32, 1, SpecLimits::kLayers));
  POLYAD_ASSIGN_OR_RETURN(spec.num_heads,
                          config.IntOr("num_attention_heads", 32, 1, SpecLimits::kHeads));
  POLYAD_ASSIGN_OR_RETURN(spec.num_kv_heads, ReadKvHeads(config, absent.kv_heads, spec.num_heads));
  POLYAD_ASSIGN_OR_RETURN(spec.head_dim, ReadHeadDim(config, absent.head_dim, spec));
  POLYAD_ASSIGN_OR_RETURN(
      spec.max_position,
      config.IntOr("max_position_embeddings", absent.positions, 1, SpecLimits::kPositions));
  return absl::OkStatus();
}

Status ReadBiases(const JsonFields& config, ModelSpec& spec) {
  const bool reads_attention_bias =
      spec.architecture == Architecture::kLlama || spec.architecture == Architecture::kQwen3;
  if (reads_attention_bias) {
    POLYAD_ASSIGN_OR_RETURN(spec.qkv_bias, config.BoolOr("attention_bias", false));
    spec.o_bias = spec.qkv_bias;
  }
  if (spec.architecture == Architecture::kQwen2) spec.qkv_bias = true;
  if (spec.architecture == Architecture::kLlama) {
    POLYAD_ASSIGN_OR_RETURN(spec.mlp_bias, config.BoolOr("mlp_bias", false));
  }
  return absl::OkStatus();
}

// layer_types as transformers 5 writes them: an entry for each layer, full or sliding.
Status ReadLayerTypes(const JsonFields& config, int64_t window, ModelSpec& spec) {
  POLYAD_ASSIGN_OR_RETURN(const auto types, config.StringsOr("layer_types", {}));
  if (static_cast<int64_t>(types.size()) != spec.num_layers) {
    return InvalidArgument("%s: key 'layer_types': expected %d entries, got %d", kConfigName,
                           spec.num_layers, types.size());
  }
  for (size_t layer = 0; layer < types.size(); ++layer) {
    if (types[layer] == "full_attention") continue;
    if (types[layer] != "sliding_attention") {
      return Unimplemented("%s: key 'layer_types': %s is not supported", kConfigName,
                           Quote(types[layer]));
    }
    if (window == 0) {
      return InvalidArgument("%s: layer %d slides but sliding_window is not in use", kConfigName,
                             layer);
    }
    spec.sliding_window[layer] = window;
  }
  return absl::OkStatus();
}

Status ReadSlidingWindow(const JsonFields& config, ModelSpec& spec) {
  spec.sliding_window.assign(static_cast<size_t>(spec.num_layers), 0);
  const std::string key = "sliding_window";
  if (spec.architecture == Architecture::kLlama) return absl::OkStatus();
  const bool is_null = config.object().contains(key) && !config.Has(key);
  POLYAD_ASSIGN_OR_RETURN(const int64_t given,
                          config.IntOr(key, is_null ? 0 : 4096, 1, SpecLimits::kPositions));
  if (spec.architecture == Architecture::kMistral) {
    spec.sliding_window.assign(static_cast<size_t>(spec.num_layers), given);
    return absl::OkStatus();
  }
  POLYAD_ASSIGN_OR_RETURN(const bool in_use, config.BoolOr("use_sliding_window", false));
  const int64_t window = in_use ? given : 0;
  if (config.Has("layer_types")) return ReadLayerTypes(config, window, spec);
  POLYAD_ASSIGN_OR_RETURN(const int64_t first,
                          config.IntOr("max_window_layers", 28, 0, SpecLimits::kLayers));
  for (int64_t layer = first; layer < spec.num_layers; ++layer) {
    spec.sliding_window[static_cast<size_t>(layer)] = window;
  }
  return absl::OkStatus();
}

Status ReadLlamaLike(const JsonFields& config, ModelSpec& spec) {
  POLYAD_RETURN_IF_ERROR(ReadShapes(config, spec));
  POLYAD_RETURN_IF_ERROR(ReadRmsNorm(config, spec));
  POLYAD_ASSIGN_OR_RETURN(spec.activation, ReadActivation(config, "hidden_act", "silu"));
  POLYAD_RETURN_IF_ERROR(ReadBiases(config, spec));
  POLYAD_RETURN_IF_ERROR(ReadSlidingWindow(config, spec));
  spec.qk_norm = spec.architecture == Architecture::kQwen3;
  POLYAD_ASSIGN_OR_RETURN(spec.rope, ReadHfRope(config, {spec.head_dim, spec.max_position}));
  spec.max_position = ScaledMaxPosition(spec.rope, spec.max_position);
  POLYAD_ASSIGN_OR_RETURN(spec.tie_embeddings, config.BoolOr("tie_word_embeddings", false));
  spec.attention_scale = 1.0f / std::sqrt(static_cast<float>(spec.head_dim));
  return absl::OkStatus();
}

Status ReadGpt2(const JsonFields& config, ModelSpec& spec) {
  static constexpr const char* kRefused[] = {"scale_attn_by_inverse_layer_idx",
                                             "reorder_and_upcast_attn", "add_cross_attention"};
  POLYAD_RETURN_IF_ERROR(RefuseIfTrue(config, kRefused));
  POLYAD_ASSIGN_OR_RETURN(spec.vocab_size,
                          config.IntOr("vocab_size", 50257, 1, SpecLimits::kVocab));
  POLYAD_ASSIGN_OR_RETURN(spec.hidden_size, config.IntOr("n_embd", 768, 1, SpecLimits::kHidden));
  POLYAD_ASSIGN_OR_RETURN(spec.num_layers, config.IntOr("n_layer", 12, 1, SpecLimits::kLayers));
  POLYAD_ASSIGN_OR_RETURN(spec.num_heads, config.IntOr("n_head", 12, 1, SpecLimits::kHeads));
  POLYAD_ASSIGN_OR_RETURN(spec.intermediate_size, config.IntOr("n_inner", 4 * spec.hidden_size, 1,
                                                               SpecLimits::kIntermediate));
  POLYAD_ASSIGN_OR_RETURN(spec.max_position,
                          config.IntOr("n_positions", 1024, 1, SpecLimits::kPositions));
  POLYAD_ASSIGN_OR_RETURN(const double eps, config.NumberOr("layer_norm_epsilon", 1e-5, 0.0, 1.0));
  POLYAD_ASSIGN_OR_RETURN(spec.activation,
                          ReadActivation(config, "activation_function", "gelu_new"));
  POLYAD_ASSIGN_OR_RETURN(const bool scaled, config.BoolOr("scale_attn_weights", true));
  POLYAD_ASSIGN_OR_RETURN(spec.tie_embeddings, config.BoolOr("tie_word_embeddings", true));
  if (spec.hidden_size % spec.num_heads != 0) {
    return InvalidArgument("%s: n_embd %d is no multiple of n_head %d", kConfigName,
                           spec.hidden_size, spec.num_heads);
  }
  spec.num_kv_heads = spec.num_heads;
  spec.head_dim = spec.hidden_size / spec.num_heads;
  spec.norm = NormKind::kLayer;
  spec.norm_eps = static_cast<float>(eps);
  spec.gated_mlp = false;
  spec.fused_qkv = spec.qkv_bias = spec.o_bias = spec.mlp_bias = true;
  spec.learned_positions = true;
  spec.sliding_window.assign(static_cast<size_t>(spec.num_layers), 0);
  spec.attention_scale = scaled ? 1.0f / std::sqrt(static_cast<float>(spec.head_dim)) : 1.0f;
  return absl::OkStatus();
}

// eos_token_id: an id or a list of them.
StatusOr<std::vector<int64_t>> ReadIds(const JsonFields& fields, const std::string& key) {
  const Json* value = fields.Find(key);
  std::vector<int64_t> ids;
  if (value == nullptr) return ids;
  const bool is_list = value->is_array();
  if (is_list && value->size() > 256) return fields.WrongType(key, "at most 256 ids");
  const Json list = is_list ? *value : Json::array({*value});
  for (const Json& id : list) {
    if (!id.is_number_integer()) return fields.WrongType(key, "a token id or a list of them");
    ids.push_back(id.get<int64_t>());
  }
  return ids;
}

// Reads bos and eos from one file; what it says replaces what an earlier file said.
Status ReadSpecialIds(const JsonFields& fields, ModelSpec& spec) {
  POLYAD_ASSIGN_OR_RETURN(const auto bos, ReadIds(fields, "bos_token_id"));
  if (!bos.empty() && KeepTokenId("bos_token_id", bos[0], spec)) {
    spec.bos_id = static_cast<int32_t>(bos[0]);
  }
  POLYAD_ASSIGN_OR_RETURN(const auto eos, ReadIds(fields, "eos_token_id"));
  if (eos.empty()) return absl::OkStatus();
  spec.eos_ids.clear();
  for (const int64_t id : eos) {
    if (KeepTokenId("eos_token_id", id, spec)) spec.eos_ids.push_back(static_cast<int32_t>(id));
  }
  return absl::OkStatus();
}

StatusOr<std::optional<double>> OptionalNumber(const JsonFields& fields, const std::string& key) {
  if (!fields.Has(key)) return std::optional<double>();
  POLYAD_ASSIGN_OR_RETURN(const double value, fields.Number(key, -kLargest, kLargest));
  return std::optional<double>(value);
}

Status ReadGeneration(const std::string& text, ModelSpec& spec) {
  POLYAD_ASSIGN_OR_RETURN(const Json json, ParseJson(text, kGenerationName, JsonLimits{}));
  POLYAD_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(json, kGenerationName));
  GenerationDefaults& defaults = spec.generation;
  if (fields.Has("do_sample")) {
    POLYAD_ASSIGN_OR_RETURN(defaults.do_sample, fields.BoolOr("do_sample", false));
  }
  POLYAD_ASSIGN_OR_RETURN(defaults.temperature, OptionalNumber(fields, "temperature"));
  POLYAD_ASSIGN_OR_RETURN(defaults.top_p, OptionalNumber(fields, "top_p"));
  POLYAD_ASSIGN_OR_RETURN(defaults.min_p, OptionalNumber(fields, "min_p"));
  POLYAD_ASSIGN_OR_RETURN(defaults.repetition_penalty,
                          OptionalNumber(fields, "repetition_penalty"));
  if (fields.Has("top_k")) {
    POLYAD_ASSIGN_OR_RETURN(defaults.top_k, fields.Int("top_k", 0, SpecLimits::kVocab));
  }
  return ReadSpecialIds(fields, spec);
}

}  // namespace

StatusOr<ModelSpec> SpecFromHfConfig(const std::string& config_text,
                                     const std::string& generation_config) {
  POLYAD_ASSIGN_OR_RETURN(const Json json, ParseJson(config_text, kConfigName, JsonLimits{}));
  POLYAD_ASSIGN_OR_RETURN(const JsonFields config, JsonFields::Of(json, kConfigName));
  ModelSpec spec;
  POLYAD_ASSIGN_OR_RETURN(spec.architecture, ReadArchitecture(config));
  POLYAD_ASSIGN_OR_RETURN(spec.name, config.StringOr("_name_or_path", ""));
  POLYAD_RETURN_IF_ERROR(ReadQuantizationConfig(config).status());
  if (spec.architecture == Architecture::kGpt2) {
    POLYAD_RETURN_IF_ERROR(ReadGpt2(config, spec));
  } else {
    POLYAD_RETURN_IF_ERROR(ReadLlamaLike(config, spec));
  }
  if (config.object().contains("auto_map")) {
    spec.warnings.push_back("config.json: auto_map names code, which is never executed");
  }
  POLYAD_RETURN_IF_ERROR(ReadSpecialIds(config, spec));
  if (!generation_config.empty()) POLYAD_RETURN_IF_ERROR(ReadGeneration(generation_config, spec));
  POLYAD_RETURN_IF_ERROR(CheckSpec(spec));
  return spec;
}

}  // namespace polyad
