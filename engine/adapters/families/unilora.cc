// Uni-LoRA: both factors' entries are picked from one vector and scaled. Lowers to LowRank. Source:
// zoo section 5.1; peft 0.21.2, tuners/unilora.

#include "engine/adapters/families/family.h"
#include "engine/adapters/lowering_ops.h"
#include "engine/adapters/module_tensors.h"
#include "engine/adapters/peft_config.h"
#include "engine/adapters/transform_ops.h"

namespace polyad {
namespace {

constexpr std::string_view kOwnKeys[] = {"r",
                                         "proj_seed",
                                         "theta_d_length",
                                         "save_indices",
                                         "init_theta_d_bound",
                                         "unilora_dropout",
                                         "init_weights"};
constexpr char kVector[] = "base_model.unilora_theta_d";

// theta[indices] * scales, [rows, cols] with a size given as kAnySize taken from the file.
StatusOr<Matrix> TakePicked(AdapterSource& source, const ModuleTensors& module,
                            const std::vector<float>& theta, const std::string& factor,
                            std::pair<int64_t, int64_t> size) {
  POLYAD_ASSIGN_OR_RETURN(FloatTensor scales,
                          module.Floats("unilora_scales_" + factor, {size.first, size.second}));
  POLYAD_ASSIGN_OR_RETURN(
      const IndexTensor indices,
      TakeIndices(source, module.NameOf("unilora_indices_" + factor),
                  static_cast<int64_t>(theta.size()), {scales.Dim(0), scales.Dim(1)}));
  for (size_t i = 0; i < indices.values.size(); ++i) {
    scales.values[i] *= theta[static_cast<size_t>(indices.values[i])];
  }
  return std::move(scales).AsMatrix();
}

}  // namespace

StatusOr<AdapterProgram> LowerUniLora(AdapterSource& source, const LoweringContext& context) {
  POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields config,
                          PeftConfigFields(source.config(), kOwnKeys));
  POLYAD_ASSIGN_OR_RETURN(const int64_t rank, config.IntOr("r", 4, 1, kMaxRank));
  POLYAD_ASSIGN_OR_RETURN(const FloatTensor theta, TakeFloats(source, kVector, {kAnySize}));
  AdapterProgram program;
  POLYAD_ASSIGN_OR_RETURN(const std::vector<ModuleTensors> modules,
                          ModulesWith(source, context.spec, {"unilora_indices_A"}));
  if (modules.empty()) {
    return Unimplemented(
        "adapter_model.safetensors: the indices are not saved; write them with "
        "tools/export/peft_complete.py");
  }
  for (const ModuleTensors& module : modules) {
    POLYAD_ASSIGN_OR_RETURN(Matrix a,
                            TakePicked(source, module, theta.values, "A", {rank, module.in()}));
    POLYAD_ASSIGN_OR_RETURN(Matrix b,
                            TakePicked(source, module, theta.values, "B", {module.out(), a.rows}));
    AddLowRank(program, module.site(), std::move(a), std::move(b));
  }
  return program;
}

}  // namespace polyad
