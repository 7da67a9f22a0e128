// (IA)^3: trained scales of outputs (keys, values) and of feed-forward inputs. Lowers to
// OutputScale, which scales the base's bias too, and InputScale. Source: zoo section 5.2; peft
// 0.21.2, tuners/ia3.

#include <algorithm>
#include <optional>

#include "engine/adapters/families/family.h"
#include "engine/adapters/lowering_ops.h"
#include "engine/adapters/module_tensors.h"
#include "engine/adapters/peft_config.h"
#include "engine/adapters/transform_ops.h"

namespace polyad {
namespace {

constexpr std::string_view kOwnKeys[] = {"feedforward_modules", "init_ia3_weights"};

// Whether a module's inputs are scaled, by the list of feed-forward modules (endings of paths).
// Nothing where the configuration gives a regular expression: then the vector's shape says it.
StatusOr<std::optional<bool>> ScalesInput(const OrderedJsonFields& config,
                                          const std::string& path) {
  const OrderedJson* modules = config.Find("feedforward_modules");
  if (modules != nullptr && modules->is_string()) return std::optional<bool>();
  POLYAD_ASSIGN_OR_RETURN(const std::vector<std::string> endings,
                          config.StringsOr("feedforward_modules", {}));
  return std::optional<bool>(
      std::any_of(endings.begin(), endings.end(),
                  [&](const std::string& ending) { return path.ends_with(ending); }));
}

// [1, in] for inputs, [out, 1] for outputs.
Status LowerModule(const ModuleTensors& module, const OrderedJsonFields& config,
                   AdapterProgram& program) {
  POLYAD_ASSIGN_OR_RETURN(FloatTensor tensor, module.Floats("ia3_l", {kAnySize, kAnySize}));
  POLYAD_ASSIGN_OR_RETURN(const std::optional<bool> listed, ScalesInput(config, module.path()));
  const bool of_inputs = listed.value_or(tensor.Dim(0) == 1);
  const std::vector<int64_t> expected =
      of_inputs ? std::vector<int64_t>{1, module.in()} : std::vector<int64_t>{module.out(), 1};
  if (tensor.shape != expected) {
    return FailedPrecondition("tensor %s: expected %s, got %s", tensor.name,
                              ShapeToString(expected), ShapeToString(tensor.shape));
  }
  if (of_inputs) {
    ScaleInput(program, module.site(), std::move(tensor.values));
  } else {
    ScaleOutput(program, module.site(), std::move(tensor.values));
  }
  return absl::OkStatus();
}

}  // namespace

StatusOr<AdapterProgram> LowerIa3(AdapterSource& source, const LoweringContext& context) {
  POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields config,
                          PeftConfigFields(source.config(), kOwnKeys));
  AdapterProgram program;
  POLYAD_ASSIGN_OR_RETURN(const std::vector<ModuleTensors> modules,
                          ModulesWith(source, context.spec, {"ia3_l"}));
  for (const ModuleTensors& module : modules) {
    POLYAD_RETURN_IF_ERROR(LowerModule(module, config, program));
  }
  return program;
}

}  // namespace polyad
