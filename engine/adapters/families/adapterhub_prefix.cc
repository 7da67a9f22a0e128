#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "engine/adapters/activation_names.h"
#include "engine/adapters/adapterhub_bottleneck.h"
#include "engine/adapters/adapterhub_gates.h"
#include "engine/adapters/families/adapterhub_parts.h"

namespace polyad {
namespace {

constexpr char kWhere[] = "adapter_config.json";
constexpr int64_t kMaxPrefix = 65536;

HubPlace Prefix(const std::string& leaf) {
  return {-1, "", "prefix_tunings", "self_prefix." + leaf};
}

// rows [n, in] through a [out, in] map with bias -> [n, out], in double.
std::vector<double> Map(const std::vector<double>& x, const std::vector<float>& weight,
                        const std::vector<float>& bias) {
  const size_t out = bias.size();
  const size_t in = weight.size() / out;
  const size_t rows = x.size() / in;
  std::vector<double> y(rows * out);
  for (size_t row = 0; row < rows; ++row) {
    for (size_t o = 0; o < out; ++o) {
      double sum = bias[o];
      for (size_t i = 0; i < in; ++i)
        sum += x[row * in + i] * static_cast<double>(weight[o * in + i]);
      y[row * out + o] = sum;
    }
  }
  return y;
}

// [tokens, width], the last map's output.
StatusOr<std::vector<float>> Evaluate(HubTensors& tensors, const HubPart& part, int64_t tokens,
                                      int64_t hidden, int64_t width) {
  POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields options,
                          OrderedJsonFields::Of(part.options, kWhere));
  POLYAD_ASSIGN_OR_RETURN(const ActivationKind activation, ReadHubActivation(options));
  POLYAD_ASSIGN_OR_RETURN(const std::vector<float> embedding,
                          tensors.Take(Prefix("wte.weight"), {tokens, hidden}));
  POLYAD_ASSIGN_OR_RETURN(const std::vector<float> w1,
                          tensors.Take(Prefix("control_trans.0.weight"), {-1, hidden}));
  const auto middle = static_cast<int64_t>(w1.size()) / hidden;
  POLYAD_ASSIGN_OR_RETURN(const std::vector<float> b1,
                          tensors.Take(Prefix("control_trans.0.bias"), {middle}));
  POLYAD_ASSIGN_OR_RETURN(const std::vector<float> w2,
                          tensors.Take(Prefix("control_trans.2.weight"), {width, middle}));
  POLYAD_ASSIGN_OR_RETURN(const std::vector<float> b2,
                          tensors.Take(Prefix("control_trans.2.bias"), {width}));
  std::vector<double> inner = Map({embedding.begin(), embedding.end()}, w1, b1);
  for (double& value : inner) value = Activate(activation, value);
  const std::vector<double> outer = Map(inner, w2, b2);
  return std::vector<float>(outer.begin(), outer.end());
}

// One output for keys and values together, or one for each.
Status ReadPrefixGates(HubTensors& tensors, const OrderedJsonFields& options, const ModelSpec& spec,
                       const std::vector<int64_t>& layers, SoftPromptTensors& prompt) {
  POLYAD_ASSIGN_OR_RETURN(const bool shared, options.BoolOr("shared_gating", false));
  const std::string module = spec.architecture == Architecture::kGpt2 ? "attn" : "self_attn";
  prompt.gates.resize(static_cast<size_t>(spec.num_layers));
  for (const int64_t layer : layers) {
    POLYAD_ASSIGN_OR_RETURN(
        std::vector<SegmentGate> gates,
        ReadGates(tensors, {layer, module + ".prefix_tuning", "prefix_gates", ""},
                  {shared ? 1 : 2, spec.hidden_size}));
    PrefixGate& gate = prompt.gates[static_cast<size_t>(layer)];
    gate.key_weight = std::move(gates[0].weight);
    gate.key_bias = gates[0].bias;
    if (shared) continue;
    gate.value_weight = std::move(gates[1].weight);
    gate.value_bias = gates[1].bias;
  }
  return absl::OkStatus();
}

}  // namespace

Status LowerHubPrefix(HubTensors& tensors, const HubPart& part, const LoweringContext& context,
                      AdapterProgram& program) {
  const ModelSpec& spec = context.spec;
  POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields options,
                          OrderedJsonFields::Of(part.options, kWhere));
  POLYAD_ASSIGN_OR_RETURN(const bool flat, options.BoolOr("flat", false));
  POLYAD_ASSIGN_OR_RETURN(const bool gated, options.BoolOr("use_gating", false));
  POLYAD_ASSIGN_OR_RETURN(const int64_t tokens, options.Int("prefix_length", 1, kMaxPrefix));
  if (spec.head_dim != spec.hidden_size / spec.num_heads) {
    return FailedPrecondition(
        "%s: prefix tuning needs heads of hidden / heads = %d numbers, the base model's have %d",
        kWhere, spec.hidden_size / spec.num_heads, spec.head_dim);
  }
  std::vector<int64_t> layers;
  for (int64_t layer = 0; layer < spec.num_layers; ++layer) {
    if (!part.LeavesOut(layer)) layers.push_back(layer);
  }
  const int64_t kv = spec.KvWidth();
  const int64_t width = static_cast<int64_t>(layers.size()) * 2 * kv;
  std::vector<float> values;
  if (flat) {
    POLYAD_ASSIGN_OR_RETURN(values, tensors.Take(Prefix("control_trans"), {tokens * width}));
  } else {
    POLYAD_ASSIGN_OR_RETURN(values, Evaluate(tensors, part, tokens, spec.hidden_size, width));
  }
  SoftPromptTensors prompt;
  prompt.num_tokens = tokens;
  prompt.shifts_positions = false;
  prompt.kv.resize(static_cast<size_t>(spec.num_layers));
  for (size_t j = 0; j < layers.size(); ++j) {
    std::vector<float>& rows = prompt.kv[static_cast<size_t>(layers[j])];
    for (int64_t token = 0; token < tokens; ++token) {
      const auto* begin = values.data() + token * width + static_cast<int64_t>(j) * 2 * kv;
      rows.insert(rows.end(), begin, begin + 2 * kv);
    }
  }
  if (gated) {
    POLYAD_RETURN_IF_ERROR(ReadPrefixGates(tensors, options, context.spec, layers, prompt));
    program.reads_whole_prompt = true;
  }
  program.soft_prompt = std::move(prompt);
  return absl::OkStatus();
}

}  // namespace polyad
