// BEFT: a bias added to chosen projections. Lowers to Bias. Source: zoo section 3; peft 0.21.2,
// tuners/beft.

#include "engine/adapters/families/family.h"
#include "engine/adapters/lowering_ops.h"
#include "engine/adapters/module_tensors.h"
#include "engine/adapters/peft_config.h"
#include "engine/adapters/transform_ops.h"

namespace polyad {
namespace {

constexpr std::string_view kOwnKeys[] = {"init_weights"};

}  // namespace

StatusOr<AdapterProgram> LowerBeft(AdapterSource& source, const LoweringContext& context) {
  POLYAD_RETURN_IF_ERROR(PeftConfigFields(source.config(), kOwnKeys).status());
  AdapterProgram program;
  POLYAD_ASSIGN_OR_RETURN(const std::vector<ModuleTensors> modules,
                          ModulesWith(source, context.spec, {"beft_bias"}));
  for (const ModuleTensors& module : modules) {
    POLYAD_ASSIGN_OR_RETURN(FloatTensor shift, module.Floats("beft_bias", {1, module.out()}));
    AddBias(program, module.site(), std::move(shift.values));
  }
  return program;
}

}  // namespace polyad
