// LoKr: dW = alpha / r (w1 kron w2), each factor whole or a product of two. Lowers to Kronecker.
// Source: zoo section 5.4; peft 0.21.2, tuners/lokr.

#include "engine/adapters/families/family.h"
#include "engine/adapters/lowering_ops.h"
#include "engine/adapters/module_tensors.h"
#include "engine/adapters/peft_config.h"
#include "engine/adapters/transform_ops.h"

namespace polyad {
namespace {

constexpr std::string_view kOwnKeys[] = {"r",
                                         "alpha",
                                         "rank_pattern",
                                         "alpha_pattern",
                                         "decompose_both",
                                         "init_weights",
                                         "module_dropout",
                                         "rank_dropout_scale",
                                         "decompose_factor",
                                         "rank_dropout"};
constexpr std::string_view kLeaves[] = {"lokr_w1", "lokr_w1_a"};

// w1 or w1_a w1_b: [rows, cols], rank-checked where it is a product.
StatusOr<Matrix> TakeFactor(const ModuleTensors& module, const std::string& name, int64_t rank) {
  if (module.Has(name)) {
    POLYAD_ASSIGN_OR_RETURN(FloatTensor whole, module.Floats(name, {kAnySize, kAnySize}));
    return std::move(whole).AsMatrix();
  }
  POLYAD_ASSIGN_OR_RETURN(FloatTensor a, module.Floats(name + "_a", {kAnySize, rank}));
  POLYAD_ASSIGN_OR_RETURN(FloatTensor b, module.Floats(name + "_b", {rank, kAnySize}));
  return Multiply(std::move(a).AsMatrix(), std::move(b).AsMatrix());
}

}  // namespace

StatusOr<AdapterProgram> LowerLoKr(AdapterSource& source, const LoweringContext& context) {
  POLYAD_RETURN_IF_ERROR(PeftConfigFields(source.config(), kOwnKeys).status());
  POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields config,
                          OrderedJsonFields::Of(source.config(), "adapter_config.json"));
  POLYAD_ASSIGN_OR_RETURN(const PatternValues ranks,
                          PatternValues::Parse(config, "r", "rank_pattern", 8));
  POLYAD_ASSIGN_OR_RETURN(const PatternValues alphas,
                          PatternValues::Parse(config, "alpha", "alpha_pattern", 8));
  AdapterProgram program;
  POLYAD_ASSIGN_OR_RETURN(const std::vector<ModuleTensors> modules,
                          ModulesWith(source, context.spec, ModuleQuery{kLeaves}));
  for (const ModuleTensors& module : modules) {
    POLYAD_ASSIGN_OR_RETURN(const int64_t rank, CheckRank(module.path(), ranks.For(module.path())));
    POLYAD_ASSIGN_OR_RETURN(Matrix left, TakeFactor(module, "lokr_w1", rank));
    POLYAD_ASSIGN_OR_RETURN(Matrix right, TakeFactor(module, "lokr_w2", rank));
    if (left.rows * right.rows != module.out() || left.cols * right.cols != module.in()) {
      return FailedPrecondition(
          "module %s: expected factors of [%d, %d], got [%d, %d] and [%d, %d]: made for another "
          "base model",
          module.path(), module.out(), module.in(), left.rows, left.cols, right.rows, right.cols);
    }
    Scale(left, alphas.For(module.path()) / static_cast<double>(rank));
    AddKronecker(program, module.site(), std::move(left), std::move(right));
  }
  return program;
}

}  // namespace polyad
