// LN-tuning: norms replaced whole. Source: zoo section 5.2; peft 0.21.2, tuners/ln_tuning.

#include "engine/adapters/families/family.h"
#include "engine/adapters/lowering_ops.h"
#include "engine/adapters/module_tensors.h"
#include "engine/adapters/peft_config.h"
#include "engine/adapters/transform_ops.h"

namespace polyad {
namespace {

constexpr std::string_view kLeaf = ".ln_tuning_layers.weight";

}  // namespace

StatusOr<AdapterProgram> LowerLnTuning(AdapterSource& source, const LoweringContext& context) {
  POLYAD_RETURN_IF_ERROR(CheckPeftKeys(source.config(), {}));
  AdapterProgram program;
  for (const std::string& name : source.RemainingNames()) {
    const std::string_view view = name;
    if (!view.starts_with(kPeftPrefix) || !view.ends_with(kLeaf)) continue;
    const std::string path(
        view.substr(kPeftPrefix.size(), view.size() - kPeftPrefix.size() - kLeaf.size()));
    const StatusOr<NormRef> norm = ResolveNormPath(context.spec, path);
    if (!norm.ok()) {
      return FailedPrecondition("tensor %s: the base model has no norm of this name", name);
    }
    NormReplacement replacement{norm->layer, norm->site, {}, {}};
    POLYAD_ASSIGN_OR_RETURN(FloatTensor weight, TakeFloats(source, name, {kAnySize}));
    replacement.weight = std::move(weight.values);
    const std::string bias_name = name.substr(0, name.rfind('.')) + ".bias";
    if (source.Has(bias_name)) {
      POLYAD_ASSIGN_OR_RETURN(FloatTensor bias, TakeFloats(source, bias_name, {kAnySize}));
      replacement.bias = std::move(bias.values);
    }
    POLYAD_RETURN_IF_ERROR(ReplaceNorm(program, context.spec, std::move(replacement), name));
  }
  return program;
}

}  // namespace polyad
