#include "engine/adapters/families/lora_config.h"

#include <cmath>
#include <string_view>

#include "engine/adapters/module_tensors.h"

namespace polyad {
namespace {

constexpr size_t kMaxInvocation = 1024;

// Read here, or of no effect once trained.
constexpr std::string_view kUnderstood[] = {"r",
                                            "lora_alpha",
                                            "use_rslora",
                                            "rank_pattern",
                                            "alpha_pattern",
                                            "lora_dropout",
                                            "lora_bias",
                                            "use_dora",
                                            "use_qalora",
                                            "qalora_group_size",
                                            "init_lora_weights",
                                            "kasa_config",
                                            "alora_invocation_tokens",
                                            "trainable_token_indices",
                                            "ensure_weight_tying",
                                            "use_bdlora",
                                            "target_parameters",
                                            "loftq_config",
                                            "eva_config",
                                            "corda_config",
                                            "lora_ga_config",
                                            "velora_config",
                                            "monteclora_config",
                                            "runtime_config",
                                            "megatron_config",
                                            "megatron_core"};

struct Refused {
  std::string_view key;
  std::string_view what;
};
constexpr Refused kRefused[] = {{"layer_replication", "it changes the base model's layers"},
                                {"arrow_config", "Arrow routing"}};

// PEFT writes loftq_config only where the adapter makes up for what quantising one base lost.
Status CheckLoftq(const OrderedJsonFields& config, const std::string& base_digest) {
  const OrderedJson* loftq = config.Find("loftq_config");
  if (loftq == nullptr || loftq->empty() || !base_digest.empty()) return absl::OkStatus();
  return FailedPrecondition(
      "adapter_config.json: loftq_config: a LoftQ adapter belongs to the one quantised base that "
      "it "
      "was made with, and nothing says which; record it with tools/export/base_record.py");
}

StatusOr<LoraStart> ReadStart(const OrderedJsonFields& config, const std::string& base_digest) {
  const OrderedJson* init = config.Find("init_lora_weights");
  if (init == nullptr || init->is_boolean()) return LoraStart::kUnchanged;
  POLYAD_ASSIGN_OR_RETURN(const std::string name, config.String("init_lora_weights"));
  for (const std::string_view harmless : {"gaussian", "eva", "orthogonal", "mica"}) {
    if (name == harmless) return LoraStart::kUnchanged;
  }
  if (name == "pissa") return LoraStart::kPissa;
  if (name == "olora") return LoraStart::kOlora;
  if (!base_digest.empty()) return LoraStart::kUnchanged;
  return Unimplemented(
      "adapter_config.json: init_lora_weights = '%s' changed the base weights in training in a way "
      "the file does not tell; convert the adapter first (save_pretrained with "
      "path_initial_model_for_weight_conversion), or record the changed base that it was published "
      "with (tools/export/base_record.py)",
      name);
}

StatusOr<std::vector<int32_t>> ReadInvocation(const OrderedJsonFields& config, int64_t vocab_size) {
  std::vector<int32_t> tokens;
  const OrderedJson* list = config.Find("alora_invocation_tokens");
  if (list == nullptr) return tokens;
  if (!list->is_array() || list->size() > kMaxInvocation) {
    return config.WrongType("alora_invocation_tokens",
                            absl::StrFormat("a list of at most %d ids", kMaxInvocation));
  }
  for (const OrderedJson& entry : *list) {
    if (!entry.is_number_integer() || entry.get<int64_t>() < 0 ||
        entry.get<int64_t>() >= vocab_size) {
      return config.WrongType("alora_invocation_tokens",
                              absl::StrFormat("ids in [0, %d)", vocab_size));
    }
    tokens.push_back(static_cast<int32_t>(entry.get<int64_t>()));
  }
  return tokens;
}

// BD-LoRA's number of blocks; 1 where it is not one. Which factors are cut in blocks is told by
// their shapes.
StatusOr<int64_t> ReadBlocks(const OrderedJsonFields& config) {
  const OrderedJson* variant = config.Find("use_bdlora");
  if (variant == nullptr) return 1;
  if (!variant->is_object()) return config.WrongType("use_bdlora", "an object");
  POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields fields,
                          OrderedJsonFields::Of(*variant, "adapter_config.json: use_bdlora"));
  return fields.IntOr("nblocks", 1, 1, kMaxRank);
}

// PEFT gives a linear layer one variant.
Status CheckVariants(const LoraConfig& lora) {
  const int count = static_cast<int>(lora.dora) + static_cast<int>(lora.pools_inputs) +
                    static_cast<int>(!lora.invocation_tokens.empty()) +
                    static_cast<int>(lora.blocks > 1) +
                    static_cast<int>(lora.start == LoraStart::kKasa);
  if (count > 1 || (lora.dora && lora.start != LoraStart::kUnchanged)) {
    return Unimplemented("adapter_config.json: two variants of LoRA at once are not served");
  }
  if (lora.bias_of_b && (lora.dora || lora.start != LoraStart::kUnchanged)) {
    return Unimplemented(
        "adapter_config.json: lora_bias together with another variant is not served");
  }
  return absl::OkStatus();
}

}  // namespace

double LoraConfig::ScaleOf(const std::string& path, double rank) const {
  return alphas.For(path) / (rank_stabilised ? std::sqrt(rank) : rank);
}

StatusOr<LoraConfig> ReadLoraConfig(const OrderedJson& json, int64_t vocab_size,
                                    const std::string& base_digest) {
  POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields config,
                          OrderedJsonFields::Of(json, "adapter_config.json"));
  for (const Refused& refused : kRefused)
    POLYAD_RETURN_IF_ERROR(RefuseIfSet(json, refused.key, refused.what));
  POLYAD_RETURN_IF_ERROR(CheckPeftKeys(json, kUnderstood));
  LoraConfig lora;
  POLYAD_RETURN_IF_ERROR(config.NumberOr("r", 8, 1, kMaxRank).status());
  POLYAD_ASSIGN_OR_RETURN(lora.ranks, PatternValues::Parse(config, "r", "rank_pattern", 8));
  POLYAD_ASSIGN_OR_RETURN(lora.alphas,
                          PatternValues::Parse(config, "lora_alpha", "alpha_pattern", 8));
  POLYAD_ASSIGN_OR_RETURN(lora.rank_stabilised, config.BoolOr("use_rslora", false));
  POLYAD_ASSIGN_OR_RETURN(lora.bias_of_b, config.BoolOr("lora_bias", false));
  POLYAD_ASSIGN_OR_RETURN(lora.dora, config.BoolOr("use_dora", false));
  POLYAD_ASSIGN_OR_RETURN(lora.pools_inputs, config.BoolOr("use_qalora", false));
  POLYAD_ASSIGN_OR_RETURN(lora.pool_size, config.IntOr("qalora_group_size", 16, 1, 1 << 20));
  POLYAD_ASSIGN_OR_RETURN(lora.blocks, ReadBlocks(config));
  lora.velora = config.Has("velora_config");
  lora.monteclora = config.Has("monteclora_config");
  const OrderedJson* parameters = config.Find("target_parameters");
  lora.on_parameters = parameters != nullptr && !parameters->empty();
  POLYAD_ASSIGN_OR_RETURN(lora.start, ReadStart(config, base_digest));
  POLYAD_RETURN_IF_ERROR(CheckLoftq(config, base_digest));
  if (config.Has("kasa_config")) lora.start = LoraStart::kKasa;
  POLYAD_ASSIGN_OR_RETURN(lora.invocation_tokens, ReadInvocation(config, vocab_size));
  lora.trained_tokens = config.Find("trainable_token_indices");
  POLYAD_RETURN_IF_ERROR(CheckVariants(lora));
  return lora;
}

}  // namespace polyad
