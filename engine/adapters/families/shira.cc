// SHiRA and Super-tuning: single entries of the weight change; the latter may have a low-rank pair
// beside them. Lower to Sparse and LowRank. Source: zoo sections 3 and 5.3; peft 0.21.2,
// tuners/shira and tuners/supertuning.

#include <algorithm>

#include "engine/adapters/families/family.h"
#include "engine/adapters/lowering_ops.h"
#include "engine/adapters/module_tensors.h"
#include "engine/adapters/peft_config.h"
#include "engine/adapters/transform_ops.h"

namespace polyad {
namespace {

constexpr std::string_view kShiraKeys[] = {"r", "mask_type", "random_seed", "init_weights"};
constexpr std::string_view kSupertuningKeys[] = {
    "r",          "sparsity",    "select_top", "save_precomputed_indices", "init_weights",
    "lora_alpha", "lora_dropout"};

Status LowerShiraModule(const ModuleTensors& module, AdapterSource& source,
                        const LoweringContext& context, AdapterProgram& program) {
  POLYAD_ASSIGN_OR_RETURN(FloatTensor weight, module.Floats("shira_weight", {kAnySize}));
  const int64_t count = weight.Dim(0);
  POLYAD_ASSIGN_OR_RETURN(const IndexTensor indices,
                          TakeIndices(source, module.NameOf("shira_indices"),
                                      std::max(module.in(), module.out()), {2, count}));
  std::vector<SparseEntry> entries;
  entries.reserve(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    const int64_t row = indices.values[static_cast<size_t>(i)];
    const int64_t col = indices.values[static_cast<size_t>(count + i)];
    if (row >= module.out() || col >= module.in()) {
      return InvalidArgument("tensor %s: expected entries of [%d, %d], got [%d, %d]",
                             module.NameOf("shira_indices"), module.out(), module.in(), row, col);
    }
    entries.push_back(EntryAt(row, col, weight.values[static_cast<size_t>(i)]));
  }
  return AddSparse(program, context, module.site(), std::move(entries));
}

Status AddPair(const ModuleTensors& module, const AdapterSource& source, AdapterProgram& program) {
  if (!module.Has("supertuning_lora_A.weight") && !module.Has("supertuning_lora_B.weight")) {
    return absl::OkStatus();
  }
  POLYAD_ASSIGN_OR_RETURN(FloatTensor a,
                          module.Floats("supertuning_lora_A.weight", {kAnySize, module.in()}));
  POLYAD_ASSIGN_OR_RETURN(const int64_t rank,
                          CheckRank(module.path(), static_cast<double>(a.Dim(0))));
  POLYAD_ASSIGN_OR_RETURN(Matrix b, module.Take("supertuning_lora_B.weight", module.out(), rank));
  POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields config,
                          OrderedJsonFields::Of(source.config(), "adapter_config.json"));
  POLYAD_ASSIGN_OR_RETURN(const double alpha, config.Number("lora_alpha", -1e9, 1e9));
  Scale(b, alpha / static_cast<double>(rank));
  AddLowRank(program, module.site(), std::move(a).AsMatrix(), std::move(b));
  return absl::OkStatus();
}

Status LowerSupertuningModule(const ModuleTensors& module, AdapterSource& source,
                              const LoweringContext& context, AdapterProgram& program) {
  POLYAD_ASSIGN_OR_RETURN(FloatTensor values, module.Floats("supertuning_values", {kAnySize}));
  POLYAD_ASSIGN_OR_RETURN(const IndexTensor indices,
                          TakeIndices(source, module.NameOf("supertuning_indices"),
                                      module.in() * module.out(), {values.Dim(0)}));
  std::vector<SparseEntry> entries;
  for (size_t i = 0; i < values.values.size(); ++i) {
    const int64_t flat = indices.values[i];
    entries.push_back(EntryAt(flat / module.in(), flat % module.in(), values.values[i]));
  }
  POLYAD_RETURN_IF_ERROR(AddSparse(program, context, module.site(), std::move(entries)));
  return AddPair(module, source, program);
}

}  // namespace

StatusOr<AdapterProgram> LowerShira(AdapterSource& source, const LoweringContext& context) {
  POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields config,
                          PeftConfigFields(source.config(), kShiraKeys));
  POLYAD_RETURN_IF_ERROR(config.IntOr("r", 32, 1, 1 << 20).status());
  AdapterProgram program;
  POLYAD_ASSIGN_OR_RETURN(const std::vector<ModuleTensors> modules,
                          ModulesWith(source, context.spec, {"shira_weight"}));
  for (const ModuleTensors& module : modules) {
    POLYAD_RETURN_IF_ERROR(LowerShiraModule(module, source, context, program));
  }
  return program;
}

StatusOr<AdapterProgram> LowerSupertuning(AdapterSource& source, const LoweringContext& context) {
  POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields config,
                          PeftConfigFields(source.config(), kSupertuningKeys));
  POLYAD_RETURN_IF_ERROR(config.IntOr("r", 1, 1, kMaxRank).status());
  AdapterProgram program;
  POLYAD_ASSIGN_OR_RETURN(const std::vector<ModuleTensors> modules,
                          ModulesWith(source, context.spec, {"supertuning_values"}));
  for (const ModuleTensors& module : modules) {
    POLYAD_RETURN_IF_ERROR(LowerSupertuningModule(module, source, context, program));
  }
  return program;
}

}  // namespace polyad
