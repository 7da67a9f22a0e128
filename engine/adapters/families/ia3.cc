// (IA)^3: trained scales of outputs (keys, values) and of feed-forward inputs. Lowers to
// OutputScale, which scales the base's bias too, and InputScale. Source: zoo section 5.2; peft
// 0.21.2, tuners/ia3.

#include "engine/adapters/families/family.h"
#include "engine/adapters/lowering_ops.h"
#include "engine/adapters/module_tensors.h"
#include "engine/adapters/peft_config.h"
#include "engine/adapters/transform_ops.h"

namespace polyad {
namespace {

constexpr std::string_view kOwnKeys[] = {"feedforward_modules", "init_ia3_weights"};

// A module is a feed-forward one where its vector lies along the inputs. A square site's shape says
// the same: (1, in) against (out, 1).
Status LowerModule(const ModuleTensors& module, AdapterProgram& program) {
  POLYAD_ASSIGN_OR_RETURN(FloatTensor tensor, module.Floats("ia3_l", {kAnySize, kAnySize}));
  if (tensor.shape == std::vector<int64_t>{1, module.in()}) {
    ScaleInput(program, module.site(), std::move(tensor.values));
    return absl::OkStatus();
  }
  if (tensor.shape != std::vector<int64_t>{module.out(), 1}) {
    return FailedPrecondition("tensor %s: expected [%d, 1] or [1, %d], got %s", tensor.name,
                              module.out(), module.in(), ShapeToString(tensor.shape));
  }
  ScaleOutput(program, module.site(), std::move(tensor.values));
  return absl::OkStatus();
}

}  // namespace

StatusOr<AdapterProgram> LowerIa3(AdapterSource& source, const LoweringContext& context) {
  POLYAD_RETURN_IF_ERROR(PeftConfigFields(source.config(), kOwnKeys).status());
  AdapterProgram program;
  POLYAD_ASSIGN_OR_RETURN(const std::vector<ModuleTensors> modules,
                          ModulesWith(source, context.spec, {"ia3_l"}));
  for (const ModuleTensors& module : modules) {
    POLYAD_RETURN_IF_ERROR(LowerModule(module, program));
  }
  return program;
}

}  // namespace polyad
