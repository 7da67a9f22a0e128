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

// rows [n, hidden] through rows [first, first + width) of a weight [out, hidden], into columns
// [column, column + width) of `kv`.
void Project(const FloatTensor& rows, const std::vector<float>& weight,
             const std::vector<float>& bias, std::pair<int64_t, int64_t> out, int64_t column,
             GatedPrefixTensors& prefix) {
  const int64_t hidden = rows.shape.back();
  const auto [first, width] = out;
  const int64_t stride = static_cast<int64_t>(prefix.kv.size()) / prefix.num_keys;
  for (int64_t key = 0; key < prefix.num_keys; ++key) {
    for (int64_t o = 0; o < width; ++o) {
      const float* w = weight.data() + (first + o) * hidden;
      double sum = bias.empty() ? 0.0 : static_cast<double>(bias[static_cast<size_t>(first + o)]);
      for (int64_t i = 0; i < hidden; ++i) {
        sum += static_cast<double>(rows.values[static_cast<size_t>(key * hidden + i)]) *
               static_cast<double>(w[i]);
      }
      prefix.kv[static_cast<size_t>(key * stride + column + o)] = static_cast<float>(sum);
    }
  }
}

Status ProjectKeysAndValues(const LoweringContext& context, const FloatTensor& rows,
                            GatedPrefixTensors& prefix) {
  const ModelSpec& spec = context.spec;
  const int64_t width = spec.KvWidth();
  POLYAD_ASSIGN_OR_RETURN(const BaseWeights* base, context.Base());
  prefix.kv.resize(static_cast<size_t>(prefix.num_keys * 2 * width));
  for (int64_t part = 0; part < 2; ++part) {
    const Site own = part == 0 ? Site::kK : Site::kV;
    const SiteRef site{prefix.layer, spec.fused_qkv ? Site::kQkv : own};
    const int64_t first = spec.fused_qkv ? spec.QueryWidth() + part * width : 0;
    POLYAD_ASSIGN_OR_RETURN(const std::vector<float> weight, base->Matrix(site));
    POLYAD_ASSIGN_OR_RETURN(const std::vector<float> bias, base->Bias(site));
    Project(rows, weight, bias, {first, width}, part * width, prefix);
  }
  return absl::OkStatus();
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
    POLYAD_ASSIGN_OR_RETURN(const FloatTensor rows, TakeFloats(source, path + ".adaption_prompt",
                                                               {1, num_keys, spec.hidden_size}));
    POLYAD_ASSIGN_OR_RETURN(const FloatTensor gate,
                            TakeFloats(source, path + ".adaption_gate", {1}));
    prefix.gate.assign(static_cast<size_t>(spec.num_heads), gate.values[0]);
    POLYAD_RETURN_IF_ERROR(ProjectKeysAndValues(context, rows, prefix));
    program.gated_prefixes.push_back(std::move(prefix));
  }
  return program;
}

}  // namespace polyad
