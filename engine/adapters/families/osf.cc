// OSF: the smallest singular triples of W replaced. Lowers to two LowRank: the new ones, and the
// old ones taken away. Source: zoo section 3; peft 0.21.2, tuners/osf.

#include <algorithm>

#include "engine/adapters/families/family.h"
#include "engine/adapters/lowering_ops.h"
#include "engine/adapters/module_tensors.h"
#include "engine/adapters/peft_config.h"
#include "engine/adapters/transform_ops.h"

namespace polyad {
namespace {

constexpr std::string_view kOwnKeys[] = {"effective_rank", "init_weights", "rank_pattern",
                                         "target_svd_config"};

// W' = the largest singular triples of W as they are + U diag(S) V: the change is the new part
// minus the triples it replaces.
Status LowerModule(const ModuleTensors& module, const LoweringContext& context,
                   AdapterProgram& program) {
  POLYAD_ASSIGN_OR_RETURN(const FloatTensor values,
                          module.Floats("osf_svd_params.S_low", {kAnySize}));
  const int64_t count = values.Dim(0);
  if (count > std::min(module.in(), module.out())) {
    return FailedPrecondition("tensor %s: expected at most %d values, got %d", values.name,
                              std::min(module.in(), module.out()), count);
  }
  POLYAD_ASSIGN_OR_RETURN(Matrix left, module.Take("osf_svd_params.U_low", module.out(), count));
  POLYAD_ASSIGN_OR_RETURN(Matrix right, module.Take("osf_svd_params.V_low", count, module.in()));
  if (count == 0) return absl::OkStatus();
  POLYAD_ASSIGN_OR_RETURN(const Matrix weight, BaseWeight(context, module.site()));
  if (std::min(weight.rows, weight.cols) > kMaxEigenSide) {
    return Unimplemented("module %s: OSF on a weight of more than %d rows and columns",
                         module.path(), kMaxEigenSide);
  }
  ScaleColumns(left, values.values);
  FactorPair replaced = SingularPart(weight, count, /*largest=*/false);
  Scale(replaced.left, -1.0);
  AddLowRank(program, module.site(), std::move(right), std::move(left));
  AddLowRank(program, module.site(), std::move(replaced.right), std::move(replaced.left));
  return absl::OkStatus();
}

}  // namespace

StatusOr<AdapterProgram> LowerOsf(AdapterSource& source, const LoweringContext& context) {
  POLYAD_RETURN_IF_ERROR(PeftConfigFields(source.config(), kOwnKeys).status());
  AdapterProgram program;
  POLYAD_ASSIGN_OR_RETURN(const std::vector<ModuleTensors> modules,
                          ModulesWith(source, context.spec, {"osf_svd_params.S_low"}));
  for (const ModuleTensors& module : modules) {
    POLYAD_RETURN_IF_ERROR(LowerModule(module, context, program));
  }
  return program;
}

}  // namespace polyad
