// DeLoRA: dW = B diag(lambda / (r |A_k| |B_k|)) A diag(w_norm), norms held above 1e-4. Lowers to
// LowRank. Source: zoo section 5.1; peft 0.21.2, tuners/delora.

#include <algorithm>
#include <cmath>
#include <string_view>

#include "engine/adapters/families/family.h"
#include "engine/adapters/lowering_ops.h"
#include "engine/adapters/module_tensors.h"
#include "engine/adapters/peft_config.h"

namespace polyad {
namespace {

// delora_lambda and lambda_pattern only start the trained tensor.
constexpr std::string_view kKeys[] = {
    "r", "delora_lambda", "lambda_pattern", "rank_pattern", "module_dropout", "init_weights"};
constexpr double kSmallestNorm = 1e-4;

double RowNorm(const Matrix& m, int64_t row) {
  double square = 0;
  for (int64_t j = 0; j < m.cols; ++j)
    square += static_cast<double>(m.At(row, j)) * static_cast<double>(m.At(row, j));
  return std::max(std::sqrt(square), kSmallestNorm);
}

}  // namespace

StatusOr<AdapterProgram> LowerDelora(AdapterSource& source, const LoweringContext& context) {
  POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields config, PeftConfigFields(source.config(), kKeys));
  POLYAD_ASSIGN_OR_RETURN(const PatternValues ranks,
                          PatternValues::Parse(config, "r", "rank_pattern", 8));
  AdapterProgram program;
  POLYAD_ASSIGN_OR_RETURN(const std::vector<ModuleTensors> modules,
                          ModulesWith(source, context.spec,
                                      {"delora_A", "delora_B", "delora_lambda", "delora_w_norm"}));
  for (const ModuleTensors& module : modules) {
    POLYAD_ASSIGN_OR_RETURN(const int64_t rank, CheckRank(module.path(), ranks.For(module.path())));
    POLYAD_ASSIGN_OR_RETURN(Matrix a, module.Take("delora_A", rank, module.in()));
    POLYAD_ASSIGN_OR_RETURN(Matrix b, module.Take("delora_B", module.out(), rank));
    POLYAD_ASSIGN_OR_RETURN(const std::vector<float> lambda, module.TakeVector("delora_lambda", 1));
    POLYAD_ASSIGN_OR_RETURN(const std::vector<float> w_norm,
                            module.TakeVector("delora_w_norm", module.in()));
    const Matrix columns = Transposed(b);
    std::vector<float> factors(static_cast<size_t>(rank));
    for (int64_t k = 0; k < rank; ++k) {
      const double norms = static_cast<double>(rank) * RowNorm(a, k) * RowNorm(columns, k);
      factors[static_cast<size_t>(k)] = static_cast<float>(static_cast<double>(lambda[0]) / norms);
    }
    ScaleColumns(b, factors);
    ScaleColumns(a, w_norm);
    AddLowRank(program, module.site(), std::move(a), std::move(b));
  }
  return program;
}

}  // namespace polyad
