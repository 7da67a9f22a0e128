// Prompts given as embeddings: prompt tuning (and SPoT, which trains the same file), P-tuning (its
// encoder is evaluated before saving), CPT, and multitask prompt tuning, where option "task"
// chooses the prompt of one task: embeddings * (cols[task] rows[task]). Lower to a soft prompt.
// Source: zoo section 5.7; peft 0.21.2,
// tuners/{prompt_tuning,p_tuning,cpt,multitask_prompt_tuning}.

#include <string>
#include <string_view>

#include "engine/adapters/families/family.h"
#include "engine/adapters/families/prompt_config.h"
#include "engine/adapters/module_tensors.h"

namespace polyad {
namespace {

constexpr char kTensor[] = "prompt_embeddings";

// What the prompts were made from, which no longer matters once they are saved.
constexpr std::string_view kOwnKeys[] = {"prompt_tuning_init",
                                         "prompt_tuning_init_text",
                                         "tokenizer_name_or_path",
                                         "tokenizer_kwargs",
                                         "prompt_tuning_init_state_dict_path",
                                         "prompt_tuning_init_task",
                                         "encoder_reparameterization_type",
                                         "encoder_hidden_size",
                                         "encoder_num_layers",
                                         "encoder_dropout",
                                         "cpt_token_ids",
                                         "cpt_mask",
                                         "cpt_tokens_type_mask",
                                         "opt_weighted_loss_type",
                                         "opt_loss_decay_factor",
                                         "opt_projection_epsilon",
                                         "opt_projection_format_epsilon",
                                         "num_tasks",
                                         "num_ranks"};

StatusOr<SoftPromptTensors> TakeEmbeddings(AdapterSource& source, const LoweringContext& context) {
  POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields config,
                          OrderedJsonFields::Of(source.config(), "adapter_config.json"));
  SoftPromptTensors prompt;
  POLYAD_ASSIGN_OR_RETURN(prompt.num_tokens, ReadPromptConfig(config, kOwnKeys));
  POLYAD_ASSIGN_OR_RETURN(
      FloatTensor embeddings,
      TakeFloats(source, kTensor, {prompt.num_tokens, context.spec.hidden_size}));
  prompt.embeddings = std::move(embeddings.values);
  return prompt;
}

}  // namespace

StatusOr<AdapterProgram> LowerPromptTuning(AdapterSource& source, const LoweringContext& context) {
  AdapterProgram program;
  POLYAD_ASSIGN_OR_RETURN(program.soft_prompt, TakeEmbeddings(source, context));
  return program;
}

StatusOr<AdapterProgram> LowerMultitaskPrompt(AdapterSource& source,
                                              const LoweringContext& context) {
  POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields config,
                          OrderedJsonFields::Of(source.config(), "adapter_config.json"));
  POLYAD_ASSIGN_OR_RETURN(const int64_t num_tasks, config.Int("num_tasks", 1, kMaxPromptTokens));
  POLYAD_ASSIGN_OR_RETURN(const int64_t rank, config.Int("num_ranks", 1, kMaxRank));
  POLYAD_ASSIGN_OR_RETURN(const int64_t task, TaskOf(context, num_tasks));
  POLYAD_ASSIGN_OR_RETURN(SoftPromptTensors prompt, TakeEmbeddings(source, context));
  const int64_t num_tokens = prompt.num_tokens;
  const int64_t hidden = context.spec.hidden_size;
  POLYAD_ASSIGN_OR_RETURN(const FloatTensor cols,
                          TakeFloats(source, "prefix_task_cols", {num_tasks, num_tokens, rank}));
  POLYAD_ASSIGN_OR_RETURN(const FloatTensor rows,
                          TakeFloats(source, "prefix_task_rows", {num_tasks, rank, hidden}));
  for (int64_t token = 0; token < num_tokens; ++token) {
    const float* col = cols.values.data() + (task * num_tokens + token) * rank;
    for (int64_t i = 0; i < hidden; ++i) {
      const float* row = rows.values.data() + task * rank * hidden + i;
      double factor = 0;
      for (int64_t k = 0; k < rank; ++k) {
        factor += static_cast<double>(col[k]) * static_cast<double>(row[k * hidden]);
      }
      float& value = prompt.embeddings[static_cast<size_t>(token * hidden + i)];
      value = static_cast<float>(static_cast<double>(value) * factor);
    }
  }
  AdapterProgram program;
  program.soft_prompt = std::move(prompt);
  return program;
}

}  // namespace polyad
