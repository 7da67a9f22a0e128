// AdaLoRA: y += s B ((E * A) x), s = alpha / (init_r + 1e-5); pruned directions are absent from the
// file, and init_r stays what it was before pruning. Lowers to one LowRank per site, none where
// every direction went. Source: zoo sections 5.1 and 10; peft 0.21.2, tuners/adalora.

#include <string_view>

#include "engine/adapters/families/family.h"
#include "engine/adapters/lowering_ops.h"
#include "engine/adapters/module_tensors.h"
#include "engine/adapters/peft_config.h"

namespace polyad {
namespace {

constexpr std::string_view kKeys[] = {"init_r",
                                      "target_r",
                                      "r",
                                      "lora_alpha",
                                      "lora_dropout",
                                      "rank_pattern",
                                      "tinit",
                                      "tfinal",
                                      "deltaT",
                                      "beta1",
                                      "beta2",
                                      "orth_reg_weight",
                                      "total_step",
                                      "init_lora_weights",
                                      "megatron_core",
                                      "qalora_group_size",
                                      "loftq_config",
                                      "eva_config",
                                      "runtime_config",
                                      "use_rslora",
                                      "ensure_weight_tying"};

// The mask of a module names each direction of the full rank; the file holds those that stayed.
Status CheckMask(const OrderedJsonFields& config, const std::string& path, int64_t rank) {
  const OrderedJson* pattern = config.Find("rank_pattern");
  if (pattern == nullptr || !pattern->is_object()) return absl::OkStatus();
  const auto found = pattern->find(path + ".lora_E");
  if (found == pattern->end()) return absl::OkStatus();
  if (!found->is_array()) return config.WrongType("rank_pattern", "lists of booleans");
  int64_t kept = 0;
  for (const OrderedJson& entry : *found) kept += entry.is_boolean() && entry.get<bool>() ? 1 : 0;
  if (kept == rank) return absl::OkStatus();
  return InvalidArgument("tensor %s.lora_E: adapter_config.json keeps %d directions, got %d", path,
                         kept, rank);
}

}  // namespace

StatusOr<AdapterProgram> LowerAdaLora(AdapterSource& source, const LoweringContext& context) {
  POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields config, PeftConfigFields(source.config(), kKeys));
  POLYAD_ASSIGN_OR_RETURN(const double init_rank, config.NumberOr("init_r", 12, 1, kMaxRank));
  POLYAD_ASSIGN_OR_RETURN(double alpha, config.NumberOr("lora_alpha", 8, -1e9, 1e9));
  if (alpha <= 0) alpha = init_rank;
  AdapterProgram program;
  POLYAD_ASSIGN_OR_RETURN(const std::vector<ModuleTensors> modules,
                          ModulesWith(source, context.spec, {"lora_A", "lora_B", "lora_E"}));
  for (const ModuleTensors& module : modules) {
    POLYAD_ASSIGN_OR_RETURN(Matrix a, module.Take("lora_A", kAnySize, module.in()));
    POLYAD_ASSIGN_OR_RETURN(Matrix b, module.Take("lora_B", module.out(), a.rows));
    POLYAD_ASSIGN_OR_RETURN(const Matrix e, module.Take("lora_E", a.rows, 1));
    POLYAD_RETURN_IF_ERROR(CheckMask(config, module.path(), a.rows));
    if (a.rows == 0) continue;
    ScaleRows(a, e.values);
    Scale(b, alpha / (init_rank + 1e-5));
    AddLowRank(program, module.site(), std::move(a), std::move(b));
  }
  return program;
}

}  // namespace polyad
