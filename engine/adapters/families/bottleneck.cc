// LLM-Adapters' bottlenecks at linear modules, f(u) = s up act(down u) without biases: before the
// modules that lead into the MLP (x becomes x + f(x)), behind the one that leads out of it
// (y + f(y)), or beside any module (W x + f(x)) with use_parallel_adapter. Each module has its own
// pair, and s is a number or one learned value a module. Its library has no place for a sequential
// adapter at attention's modules; AdapterP is the pair behind the MLP alone. Lowers to Bottleneck.
// Source: Hu et al. 2023, LLM-Adapters; its PEFT fork, tuners/bottleneck.py; zoo section 5.5.

#include <string_view>
#include <utility>
#include <vector>

#include "engine/adapters/activation_names.h"
#include "engine/adapters/families/family.h"
#include "engine/adapters/module_tensors.h"
#include "engine/adapters/peft_config.h"

namespace polyad {
namespace {

constexpr std::string_view kKeys[] = {"bottleneck_size",      "non_linearity", "adapter_dropout",
                                      "use_parallel_adapter", "use_adapterp",  "scaling",
                                      "init_weights"};

struct Form {
  int64_t width = 0;
  ActivationKind activation = ActivationKind::kTanh;
  bool parallel = false;
  bool behind_mlp_alone = false;
  bool learned_scale = false;
  double scale = 1.0;
};

StatusOr<Form> ReadForm(const OrderedJsonFields& config) {
  Form form;
  POLYAD_ASSIGN_OR_RETURN(form.width, config.IntOr("bottleneck_size", 256, 1, kMaxRank));
  POLYAD_ASSIGN_OR_RETURN(const std::string name, config.StringOr("non_linearity", "tanh"));
  POLYAD_ASSIGN_OR_RETURN(form.activation,
                          ActivationNamed(name, "adapter_config.json: non_linearity"));
  POLYAD_ASSIGN_OR_RETURN(form.parallel, config.BoolOr("use_parallel_adapter", false));
  POLYAD_ASSIGN_OR_RETURN(form.behind_mlp_alone, config.BoolOr("use_adapterp", false));
  const OrderedJson* scaling = config.Find("scaling");
  form.learned_scale = scaling != nullptr && *scaling == "learned";
  if (!form.learned_scale) {
    POLYAD_ASSIGN_OR_RETURN(form.scale, config.NumberOr("scaling", 1.0, -1e9, 1e9));
  }
  return form;
}

StatusOr<OpStage> StageOf(const ModuleTensors& module, const Form& form) {
  if (form.parallel) return OpStage::kDelta;
  const Site site = module.site().site;
  const bool leads_in = site == Site::kGate || site == Site::kUp || site == Site::kFcIn;
  if (leads_in && !form.behind_mlp_alone) return OpStage::kInput;
  if (site == Site::kDown || site == Site::kFcOut) return OpStage::kAfter;
  return Unimplemented("tensor %s: %s adapter is not served at this module",
                       module.NameOf("adapter_down.weight"),
                       form.behind_mlp_alone ? "an AdapterP" : "a sequential");
}

}  // namespace

StatusOr<AdapterProgram> LowerLinearBottleneck(AdapterSource& source,
                                               const LoweringContext& context) {
  POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields config, PeftConfigFields(source.config(), kKeys));
  POLYAD_ASSIGN_OR_RETURN(const Form form, ReadForm(config));
  AdapterProgram program;
  POLYAD_ASSIGN_OR_RETURN(
      const std::vector<ModuleTensors> modules,
      ModulesWith(source, context.spec, {"adapter_down.weight", "adapter_up.weight"}));
  for (const ModuleTensors& module : modules) {
    POLYAD_ASSIGN_OR_RETURN(const OpStage stage, StageOf(module, form));
    const int64_t in = stage == OpStage::kAfter ? module.out() : module.in();
    const int64_t out = stage == OpStage::kInput ? module.in() : module.out();
    Bottleneck op;
    POLYAD_ASSIGN_OR_RETURN(op.down, module.View("adapter_down.weight", form.width, in));
    POLYAD_ASSIGN_OR_RETURN(op.up, module.View("adapter_up.weight", out, form.width));
    op.activation = form.activation;
    std::vector<float> scale{static_cast<float>(form.scale)};
    if (form.learned_scale) {
      POLYAD_ASSIGN_OR_RETURN(scale, module.TakeVector("adapter_scaling", 1));
    }
    op.scale = program.arena.Keep(std::move(scale));
    program.ops.push_back({module.site(), op, stage});
  }
  return program;
}

}  // namespace polyad
