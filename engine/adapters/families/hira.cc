// HiRA: dW = W * (B A), entry by entry. Lowers to Dense: as q scaled base products it would cost q
// times the base. Source: zoo section 5.3; peft 0.21.2, tuners/hira.

#include "engine/adapters/families/family.h"
#include "engine/adapters/lowering_ops.h"
#include "engine/adapters/module_tensors.h"
#include "engine/adapters/peft_config.h"
#include "engine/adapters/transform_ops.h"

namespace polyad {
namespace {

constexpr std::string_view kOwnKeys[] = {"r", "rank_pattern", "hira_dropout", "init_weights"};

}  // namespace

StatusOr<AdapterProgram> LowerHira(AdapterSource& source, const LoweringContext& context) {
  POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields config,
                          PeftConfigFields(source.config(), kOwnKeys));
  POLYAD_ASSIGN_OR_RETURN(const PatternValues ranks,
                          PatternValues::Parse(config, "r", "rank_pattern", 32));
  AdapterProgram program;
  POLYAD_ASSIGN_OR_RETURN(const std::vector<ModuleTensors> modules,
                          ModulesWith(source, context.spec, {"hira_A"}));
  for (const ModuleTensors& module : modules) {
    POLYAD_ASSIGN_OR_RETURN(const int64_t rank, CheckRank(module.path(), ranks.For(module.path())));
    POLYAD_ASSIGN_OR_RETURN(const Matrix a, module.Take("hira_A", rank, module.in()));
    POLYAD_ASSIGN_OR_RETURN(const Matrix b, module.Take("hira_B", module.out(), rank));
    POLYAD_ASSIGN_OR_RETURN(const Matrix weight, BaseWeight(context, module.site()));
    Matrix delta = Multiply(b, a);
    for (size_t i = 0; i < delta.values.size(); ++i) delta.values[i] *= weight.values[i];
    AddDense(program, module.site(), std::move(delta));
  }
  return program;
}

}  // namespace polyad
