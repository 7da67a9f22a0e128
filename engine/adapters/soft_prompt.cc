#include "engine/adapters/soft_prompt.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "engine/base/check.h"

namespace polyad {
namespace {

Status CheckSizes(const SoftPromptTensors& tensors, const ModelSpec& spec) {
  if (tensors.num_tokens < 1) {
    return InvalidArgument("soft prompt: expected at least one virtual token, got %d",
                           tensors.num_tokens);
  }
  if (tensors.kv.empty()) {
    const int64_t expected = tensors.num_prompts * tensors.num_tokens * spec.hidden_size;
    const auto got = static_cast<int64_t>(tensors.embeddings.size());
    if (got == expected) return absl::OkStatus();
    return InvalidArgument("soft prompt: expected %d numbers for %d embeddings, got %d", expected,
                           tensors.num_tokens, got);
  }
  POLYAD_CHECK(tensors.key_gates.empty() || tensors.key_gates.size() == tensors.kv.size(),
               "gates of every layer's keys");
  if (static_cast<int64_t>(tensors.kv.size()) != spec.num_layers || !tensors.embeddings.empty()) {
    return InvalidArgument("soft prompt: expected keys and values of %d layers, got %d",
                           spec.num_layers, tensors.kv.size());
  }
  const int64_t expected = tensors.num_tokens * 2 * spec.KvWidth();
  for (const std::vector<float>& layer : tensors.kv) {
    const auto got = static_cast<int64_t>(layer.size());
    if (got == expected || got == 0) continue;
    return InvalidArgument("soft prompt: expected %d numbers for %d keys and values, got %d",
                           expected, tensors.num_tokens, got);
  }
  return absl::OkStatus();
}

// One layer's gates in the backend's layout.
StatusOr<KeyGates> PackGates(const KeyGateTensors& tensors, int64_t num_tokens, int64_t hidden,
                             Backend& backend) {
  KeyGates gates;
  if (tensors.weight.empty()) return gates;
  const auto got = static_cast<int64_t>(tensors.weight.size());
  if (got != num_tokens * hidden || static_cast<int64_t>(tensors.bias.size()) != num_tokens) {
    return InvalidArgument("soft prompt: expected gates of %d tokens, got %d numbers", num_tokens,
                           got);
  }
  if (num_tokens > kMaxGatedKeys) {
    return ResourceExhausted("soft prompt: expected gates of at most %d tokens, got %d",
                             kMaxGatedKeys, num_tokens);
  }
  PackShare share;
  const Dense weight{{tensors.weight.data(), DType::kF32, num_tokens, hidden}};
  POLYAD_ASSIGN_OR_RETURN(gates.weight, backend.PackDelta(weight, share));
  gates.bias = tensors.bias;
  gates.reads_normed = tensors.reads_normed;
  return gates;
}

// Without a shift every text token sees the whole prefix, however far it is; pages slide by index.
Status CheckWindow(const SoftPromptTensors& tensors, const ModelSpec& spec) {
  const bool slides = std::any_of(spec.sliding_window.begin(), spec.sliding_window.end(),
                                  [](int64_t window) { return window > 0; });
  if (tensors.shifts_positions || !slides) return absl::OkStatus();
  return Unimplemented(
      "prefix: one that takes no positions (AdapterHub's) is not served on a model with a sliding "
      "window");
}

}  // namespace

PromptChoice SoftPrompt::Choose(std::span<const int32_t> tokens) const {
  if (token_scores.empty() || tokens.empty()) return {};
  std::vector<double> scores(static_cast<size_t>(num_prompts));
  for (const int32_t token : tokens) {
    const float* own = token_scores.data() + token * num_prompts;
    for (size_t i = 0; i < scores.size(); ++i) scores[i] += static_cast<double>(own[i]);
  }
  const auto best = std::max_element(scores.begin(), scores.end());
  double sum = 0;
  for (const double score : scores) {
    sum += std::exp((score - *best) / static_cast<double>(tokens.size()));
  }
  return {(best - scores.begin()) * num_tokens, static_cast<float>(1 / sum)};
}

StatusOr<std::shared_ptr<const SoftPrompt>> PackSoftPrompt(const SoftPromptTensors& tensors,
                                                           const ModelSpec& spec,
                                                           Backend& backend) {
  POLYAD_RETURN_IF_ERROR(CheckSizes(tensors, spec));
  POLYAD_RETURN_IF_ERROR(CheckWindow(tensors, spec));
  auto prompt = std::make_shared<SoftPrompt>();
  prompt->num_tokens = tensors.num_tokens;
  prompt->shifts_positions = tensors.shifts_positions;
  prompt->stores_kv = !tensors.kv.empty();
  prompt->gates = tensors.gates;
  prompt->num_prompts = tensors.num_prompts;
  prompt->token_scores = tensors.token_scores;
  prompt->FillBlocks();
  const int64_t width = prompt->stores_kv ? 2 * spec.KvWidth() : spec.hidden_size;
  size_t count = tensors.embeddings.size();
  for (const std::vector<float>& layer : tensors.kv) count += layer.size();
  if (count == 0) return InvalidArgument("soft prompt: expected keys and values, got none");
  prompt->bytes = static_cast<int64_t>(count * sizeof(float));
  POLYAD_ASSIGN_OR_RETURN(prompt->memory, backend.Allocate(prompt->bytes));
  auto* next = static_cast<float*>(prompt->memory.get());
  const auto place = [&](const std::vector<float>& values) {
    const int64_t num_rows = static_cast<int64_t>(values.size()) / width;
    const FloatRows rows{next, num_rows, width, width};
    next = std::copy(values.begin(), values.end(), next);
    backend.HostWrote(rows);
    return rows;
  };
  if (!prompt->stores_kv) prompt->embeddings = place(tensors.embeddings);
  for (const std::vector<float>& layer : tensors.kv) prompt->kv.push_back(place(layer));
  size_t beside = prompt->token_scores.size();
  for (const PrefixGate& gate : prompt->gates) {
    beside += gate.key_weight.size() + gate.value_weight.size();
  }
  prompt->bytes += static_cast<int64_t>(beside * sizeof(float));
  for (const KeyGateTensors& layer : tensors.key_gates) {
    POLYAD_ASSIGN_OR_RETURN(KeyGates gates,
                            PackGates(layer, tensors.num_tokens, spec.hidden_size, backend));
    if (gates.weight != nullptr) prompt->gate_cost += gates.weight->cost();
    prompt->gate_cost.bytes += FloatBytes(gates.bias.size());
    prompt->key_gates.push_back(std::move(gates));
  }
  return std::shared_ptr<const SoftPrompt>(std::move(prompt));
}

}  // namespace polyad
