// LLaMA-Adapter: the last adapter_layers layers attend to adapter_len learned vectors in a softmax
// of its own, times a scalar gate. Keys and values are the base's own projections of the vectors,
// without norm or rotation, computed here. On GPT-2 the result is added after the output projection
// and not projected. Lowers to gated prefixes. Source: zoo section 5.7; peft 0.21.2,
// tuners/adaption_prompt.

#include <string>
#include <string_view>
#include <vector>

#include "engine/adapters/families/family.h"
#include "engine/adapters/module_tensors.h"
#include "engine/adapters/peft_config.h"
#include "engine/adapters/projected_prefix.h"

namespace polyad {
namespace {

constexpr std::string_view kUnderstood[] = {
    "peft_type",    "task_type",    "base_model_name_or_path", "revision",    "inference_mode",
    "peft_version", "auto_mapping", "target_modules",          "adapter_len", "adapter_layers"};

// The module whose children the projections are: "model.layers.1.self_attn".
std::string AttentionPath(const ModelSpec& spec, int64_t layer) {
  const std::string path = ModulePath(spec, {layer, spec.fused_qkv ? Site::kQkv : Site::kK});
  return path.substr(0, path.rfind('.'));
}

Status CheckBase(const ModelSpec& spec) {
  if (spec.QueryWidth() == spec.hidden_size && !spec.qk_norm) return absl::OkStatus();
  return FailedPrecondition(
      "adapter_config.json: ADAPTION_PROMPT needs heads of hidden / heads = %d numbers without "
      "norms, the base "
      "model's have %d",
      spec.hidden_size / spec.num_heads, spec.head_dim);
}

}  // namespace

StatusOr<AdapterProgram> LowerAdaptionPrompt(AdapterSource& source,
                                             const LoweringContext& context) {
  const ModelSpec& spec = context.spec;
  POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields config,
                          OrderedJsonFields::Of(source.config(), "adapter_config.json"));
  POLYAD_RETURN_IF_ERROR(CheckKnownKeys(config.object(), kUnderstood));
  POLYAD_RETURN_IF_ERROR(CheckBase(spec));
  POLYAD_ASSIGN_OR_RETURN(const int64_t num_keys, config.Int("adapter_len", 1, 1 << 16));
  POLYAD_ASSIGN_OR_RETURN(const int64_t num_layers,
                          config.Int("adapter_layers", 1, spec.num_layers));
  AdapterProgram program;
  for (int64_t layer = spec.num_layers - num_layers; layer < spec.num_layers; ++layer) {
    const std::string path = std::string(kPeftPrefix) + AttentionPath(spec, layer);
    GatedPrefixTensors prefix;
    prefix.layer = layer;
    prefix.num_keys = num_keys;
    prefix.after_projection = spec.fused_qkv;
    POLYAD_ASSIGN_OR_RETURN(FloatTensor rows, TakeFloats(source, path + ".adaption_prompt",
                                                         {1, num_keys, spec.hidden_size}));
    POLYAD_ASSIGN_OR_RETURN(const FloatTensor gate,
                            TakeFloats(source, path + ".adaption_gate", {1}));
    prefix.gate.assign(static_cast<size_t>(spec.num_heads), gate.values[0]);
    POLYAD_ASSIGN_OR_RETURN(prefix.kv, KeysAndValuesOf(context, layer, std::move(rows).AsMatrix()));
    program.gated_prefixes.push_back(std::move(prefix));
  }
  return program;
}

}  // namespace polyad
