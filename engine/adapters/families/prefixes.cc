// Prefixes given as keys and values: PEFT's prefix tuning (and P-tuning v2, the same method), its
// encoder evaluated before saving, and cartridges, the same container with values taken from a real
// prefill. Row i of prompt_embeddings is token i's [layer][K, V][kv head][head dim]. Keys are used
// as stored, text starts at position num_virtual_tokens. Lower to a soft prompt. Source: zoo
// section 5.7; peft 0.21.2, tuners/{prefix_tuning,cartridge}.

#include <string_view>
#include <vector>

#include "engine/adapters/families/family.h"
#include "engine/adapters/families/prompt_config.h"
#include "engine/adapters/module_tensors.h"

namespace polyad {
namespace {

constexpr std::string_view kOwnKeys[] = {"encoder_hidden_size", "prefix_projection", "init_weights",
                                         "num_frozen_tokens"};

}  // namespace

StatusOr<AdapterProgram> LowerPrefixTuning(AdapterSource& source, const LoweringContext& context) {
  POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields config,
                          OrderedJsonFields::Of(source.config(), "adapter_config.json"));
  POLYAD_ASSIGN_OR_RETURN(const int64_t num_tokens, ReadPromptConfig(config, kOwnKeys));
  const int64_t width = 2 * context.spec.KvWidth();
  POLYAD_ASSIGN_OR_RETURN(
      const FloatTensor rows,
      TakeFloats(source, "prompt_embeddings", {num_tokens, context.spec.num_layers * width}));
  SoftPromptTensors prompt;
  prompt.num_tokens = num_tokens;
  prompt.kv.resize(static_cast<size_t>(context.spec.num_layers));
  const float* next = rows.values.data();
  for (int64_t token = 0; token < num_tokens; ++token) {
    for (std::vector<float>& layer : prompt.kv) {
      layer.insert(layer.end(), next, next + width);
      next += width;
    }
  }
  AdapterProgram program;
  program.soft_prompt = std::move(prompt);
  return program;
}

}  // namespace polyad
