// LoHa: dW = alpha / r (w1a w1b) * (w2a w2b), elementwise. Lowers to LowRank of rank r^2 by the
// row-wise Khatri-Rao product, or of the full smaller side where that is less. Source: zoo
// section 5.4; peft 0.21.2, tuners/loha.

#include <string_view>

#include "engine/adapters/families/family.h"
#include "engine/adapters/lowering_ops.h"
#include "engine/adapters/module_tensors.h"
#include "engine/adapters/peft_config.h"

namespace polyad {
namespace {

constexpr std::string_view kKeys[] = {"r",
                                      "alpha",
                                      "rank_pattern",
                                      "alpha_pattern",
                                      "rank_dropout",
                                      "module_dropout",
                                      "use_effective_conv2d",
                                      "init_weights"};

// Row (k, l) of the result is the elementwise product of row k of p and row l of q.
Matrix RowProducts(const Matrix& p, const Matrix& q) {
  Matrix result(p.rows * q.rows, p.cols);
  for (int64_t k = 0; k < p.rows; ++k) {
    for (int64_t l = 0; l < q.rows; ++l) {
      for (int64_t j = 0; j < p.cols; ++j) result.At(k * q.rows + l, j) = p.At(k, j) * q.At(l, j);
    }
  }
  return result;
}

}  // namespace

StatusOr<AdapterProgram> LowerLoha(AdapterSource& source, const LoweringContext& context) {
  POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields config, PeftConfigFields(source.config(), kKeys));
  POLYAD_ASSIGN_OR_RETURN(const PatternValues ranks,
                          PatternValues::Parse(config, "r", "rank_pattern", 8));
  POLYAD_ASSIGN_OR_RETURN(const PatternValues alphas,
                          PatternValues::Parse(config, "alpha", "alpha_pattern", 8));
  AdapterProgram program;
  POLYAD_ASSIGN_OR_RETURN(
      const std::vector<ModuleTensors> modules,
      ModulesWith(source, context.spec, {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"}));
  for (const ModuleTensors& module : modules) {
    POLYAD_ASSIGN_OR_RETURN(const int64_t rank, CheckRank(module.path(), ranks.For(module.path())));
    POLYAD_ASSIGN_OR_RETURN(const Matrix a1, module.Take("hada_w1_a", module.out(), rank));
    POLYAD_ASSIGN_OR_RETURN(const Matrix b1, module.Take("hada_w1_b", rank, module.in()));
    POLYAD_ASSIGN_OR_RETURN(const Matrix a2, module.Take("hada_w2_a", module.out(), rank));
    POLYAD_ASSIGN_OR_RETURN(const Matrix b2, module.Take("hada_w2_b", rank, module.in()));
    const double scale = alphas.For(module.path()) / static_cast<double>(rank);
    if (rank * rank < std::min(module.in(), module.out())) {
      Matrix up = Transposed(RowProducts(Transposed(a1), Transposed(a2)));
      Scale(up, scale);
      AddLowRank(program, module.site(), RowProducts(b1, b2), std::move(up));
    } else {
      Matrix delta = Hadamard(Multiply(a1, b1), Multiply(a2, b2));
      Scale(delta, scale);
      AddDense(program, module.site(), std::move(delta));
    }
  }
  return program;
}

}  // namespace polyad
