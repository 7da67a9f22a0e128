#include "engine/adapters/families/prompt_config.h"

#include <vector>

#include "engine/adapters/peft_config.h"

namespace polyad {
namespace {

constexpr std::string_view kCommonKeys[] = {"peft_type",
                                            "task_type",
                                            "base_model_name_or_path",
                                            "revision",
                                            "inference_mode",
                                            "peft_version",
                                            "auto_mapping",
                                            "num_virtual_tokens",
                                            "token_dim",
                                            "num_attention_heads",
                                            "num_layers",
                                            "num_transformer_submodules"};

}  // namespace

StatusOr<int64_t> ReadPromptConfig(const OrderedJsonFields& config,
                                   std::span<const std::string_view> own_keys) {
  POLYAD_RETURN_IF_ERROR(
      RefuseIfSet(config.object(), "modules_to_save", "modules beside a prompt"));
  std::vector<std::string_view> understood(std::begin(kCommonKeys), std::end(kCommonKeys));
  understood.insert(understood.end(), own_keys.begin(), own_keys.end());
  POLYAD_RETURN_IF_ERROR(CheckKnownKeys(config.object(), understood));
  POLYAD_ASSIGN_OR_RETURN(const int64_t submodules,
                          config.IntOr("num_transformer_submodules", 1, 1, 2));
  if (submodules != 1) {
    return Unimplemented(
        "adapter_config.json: num_transformer_submodules = %d is not served (an encoder's prompt)",
        submodules);
  }
  return config.Int("num_virtual_tokens", 1, kMaxPromptTokens);
}

}  // namespace polyad
