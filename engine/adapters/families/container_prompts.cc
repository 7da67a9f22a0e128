#include "engine/adapters/families/container_prompts.h"

#include <string>
#include <utility>
#include <vector>

#include "engine/adapters/lowering_ops.h"
#include "engine/adapters/projected_prefix.h"
#include "engine/io/quote.h"

namespace polyad {
namespace {

constexpr int64_t kMaxPrompts = 64;

// A router's scores of every token: router [prompts, hidden] times the base's embedding of it, so
// that the mean of a text's embeddings need not be taken (the router is linear).
Status LowerRouter(const ContainerOp& op, const LoweringContext& context,
                   SoftPromptTensors& prompt) {
  if (prompt.num_prompts > kMaxPrompts) {
    return InvalidArgument("tensor %s.prompts: expected at most %d to choose among, got %d",
                           op.name(), kMaxPrompts, prompt.num_prompts);
  }
  POLYAD_ASSIGN_OR_RETURN(const Matrix router,
                          op.Take("router", prompt.num_prompts, context.spec.hidden_size));
  POLYAD_ASSIGN_OR_RETURN(const Matrix table, BaseWeight(context, {-1, Site::kEmbed}));
  prompt.token_scores = MultiplyTransposed(table, router).values;
  return absl::OkStatus();
}

Status LowerEmbeddings(const ContainerOp& op, const LoweringContext& context,
                       AdapterProgram& program) {
  const int64_t hidden = context.spec.hidden_size;
  if (op.place().site != "embed") {
    return FailedPrecondition("tensor %s: prompts stand at the embedding", op.name());
  }
  if (program.soft_prompt) {
    return InvalidArgument("tensor %s: expected one soft prompt, got two", op.name());
  }
  POLYAD_ASSIGN_OR_RETURN(const FloatTensor prompts,
                          op.Floats("prompts", {kAnySize, kAnySize, hidden}));
  const int64_t num_tasks = prompts.Dim(0);
  if (op.Has("router")) {
    SoftPromptTensors routed;
    routed.num_prompts = num_tasks;
    routed.num_tokens = prompts.Dim(1);
    routed.embeddings = prompts.values;
    POLYAD_RETURN_IF_ERROR(LowerRouter(op, context, routed));
    program.soft_prompt = std::move(routed);
    return absl::OkStatus();
  }
  int64_t task = 0;
  if (num_tasks > 1) {
    POLYAD_ASSIGN_OR_RETURN(task, TaskOf(context, num_tasks));
  }
  SoftPromptTensors prompt;
  prompt.num_tokens = prompts.Dim(1);
  const auto begin = prompts.values.begin() + task * prompt.num_tokens * hidden;
  prompt.embeddings.assign(begin, begin + prompt.num_tokens * hidden);
  program.soft_prompt = std::move(prompt);
  return absl::OkStatus();
}

// [p, kv heads, head dim] twice -> rows of a token's keys, then its values. In place of both,
// `rows` [p, hidden] may stand, which the base's own projections make keys and values of.
StatusOr<std::vector<float>> TakeKeysAndValues(const ContainerOp& op,
                                               const LoweringContext& context, int64_t* num_keys) {
  const ModelSpec& spec = context.spec;
  if (op.Has("rows")) {
    POLYAD_ASSIGN_OR_RETURN(FloatTensor rows, op.Floats("rows", {kAnySize, spec.hidden_size}));
    *num_keys = rows.Dim(0);
    const std::string as = op.Word("as", "");
    const int64_t layer = op.place().layer;
    if (as == "vectors" && !op.Has("gate")) {
      return InvalidArgument("tensor %s.gate: missing: vectors are attended to times a gate",
                             op.name());
    }
    if (as == "vectors") return KeysAndValuesOf(context, layer, std::move(rows).AsMatrix());
    if (as == "states") return KeysAndValuesOfStates(context, layer, std::move(rows).AsMatrix());
    return InvalidArgument("zoo.json: %s: key 'as': expected vectors or states, got %s", op.name(),
                           Quote(as));
  }
  POLYAD_ASSIGN_OR_RETURN(const FloatTensor k,
                          op.Floats("k", {kAnySize, spec.num_kv_heads, spec.head_dim}));
  *num_keys = k.Dim(0);
  POLYAD_ASSIGN_OR_RETURN(const FloatTensor v,
                          op.Floats("v", {*num_keys, spec.num_kv_heads, spec.head_dim}));
  std::vector<float> rows;
  for (int64_t key = 0; key < *num_keys; ++key) {
    for (const FloatTensor* tensor : {&k, &v}) {
      const auto begin = tensor->values.begin() + key * spec.KvWidth();
      rows.insert(rows.end(), begin, begin + spec.KvWidth());
    }
  }
  return rows;
}

// Gates of the layer's keys that each row makes of its own stream, or none.
StatusOr<KeyGateTensors> TakeKeyGates(const ContainerOp& op, int64_t num_keys, int64_t hidden) {
  KeyGateTensors gates;
  if (!op.Has("gate_w")) return gates;
  POLYAD_ASSIGN_OR_RETURN(Matrix weight, op.Take("gate_w", num_keys, hidden));
  gates.weight = std::move(weight.values);
  gates.bias.resize(static_cast<size_t>(num_keys));
  if (op.Has("gate_b")) {
    POLYAD_ASSIGN_OR_RETURN(gates.bias, op.Vector("gate_b", num_keys));
  }
  const std::string tap = op.Word("tap", "r");
  if (tap != "r" && tap != "n") {
    return InvalidArgument("zoo.json: %s: key 'tap': expected r or n, got %s", op.name(),
                           Quote(tap));
  }
  gates.reads_normed = tap == "n";
  return gates;
}

Status AddLayer(const ContainerOp& op, const ModelSpec& spec, bool shifts, int64_t num_keys,
                std::vector<float> rows, AdapterProgram& program) {
  if (!program.soft_prompt) {
    program.soft_prompt.emplace();
    program.soft_prompt->num_tokens = num_keys;
    program.soft_prompt->shifts_positions = shifts;
    program.soft_prompt->kv.resize(static_cast<size_t>(spec.num_layers));
  }
  SoftPromptTensors& prompt = *program.soft_prompt;
  if (prompt.kv.empty() || prompt.num_tokens != num_keys || prompt.shifts_positions != shifts) {
    return InvalidArgument("tensor %s: expected %d keys as the other layers have, got %d",
                           op.name(), prompt.num_tokens, num_keys);
  }
  std::vector<float>& layer = prompt.kv[static_cast<size_t>(op.place().layer)];
  if (!layer.empty()) return InvalidArgument("tensor %s: the layer has a prefix", op.name());
  layer = std::move(rows);
  POLYAD_ASSIGN_OR_RETURN(KeyGateTensors gates, TakeKeyGates(op, num_keys, spec.hidden_size));
  if (gates.weight.empty()) return absl::OkStatus();
  prompt.key_gates.resize(prompt.kv.size());
  prompt.key_gates[static_cast<size_t>(op.place().layer)] = std::move(gates);
  return absl::OkStatus();
}

Status LowerPrefix(const ContainerOp& op, const LoweringContext& context, AdapterProgram& program) {
  const ModelSpec& spec = context.spec;
  if (op.place().site != "attn" || op.place().layer < 0 || op.place().layer >= spec.num_layers) {
    return FailedPrecondition("tensor %s: the base model has no such attention", op.name());
  }
  int64_t num_keys = 0;
  POLYAD_ASSIGN_OR_RETURN(std::vector<float> rows, TakeKeysAndValues(op, context, &num_keys));
  if (!op.Has("gate")) {
    POLYAD_ASSIGN_OR_RETURN(const int64_t shifts, op.Int("pos_shift", 1, 0, 1));
    return AddLayer(op, spec, shifts == 1, num_keys, std::move(rows), program);
  }
  GatedPrefixTensors prefix;
  prefix.layer = op.place().layer;
  prefix.num_keys = num_keys;
  prefix.kv = std::move(rows);
  POLYAD_ASSIGN_OR_RETURN(prefix.gate, op.Vector("gate", spec.num_heads));
  program.gated_prefixes.push_back(std::move(prefix));
  return absl::OkStatus();
}

}  // namespace

Status LowerContainerPrompt(const ContainerOp& op, const LoweringContext& context,
                            AdapterProgram& program) {
  if (op.kind() == "ep") return LowerEmbeddings(op, context, program);
  return LowerPrefix(op, context, program);
}

}  // namespace polyad
