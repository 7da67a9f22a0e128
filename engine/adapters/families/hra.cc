// HRA: W' = W prod_k (I - 2 u_k u_k'), u_k the normalised columns of hra_u; with apply_GS they are
// made orthogonal first. In compact form prod = I - U T U', so it lowers to LowRank with A = U' and
// B = -W U T. Source: zoo section 5.4; peft 0.21.2, tuners/hra.

#include <cmath>
#include <string_view>
#include <vector>

#include "engine/adapters/families/family.h"
#include "engine/adapters/lowering_ops.h"
#include "engine/adapters/module_tensors.h"
#include "engine/adapters/peft_config.h"

namespace polyad {
namespace {

constexpr std::string_view kKeys[] = {"r", "apply_GS", "init_weights"};

// Unit columns; a column of zeros reflects nothing in no direction, so the file is refused.
Status Normalise(const ModuleTensors& module, Matrix& u) {
  for (int64_t k = 0; k < u.cols; ++k) {
    double square = 0;
    for (int64_t i = 0; i < u.rows; ++i)
      square += static_cast<double>(u.At(i, k)) * static_cast<double>(u.At(i, k));
    if (square == 0)
      return InvalidArgument("tensor %s: column %d is zero", module.NameOf("hra_u"), k);
    for (int64_t i = 0; i < u.rows; ++i)
      u.At(i, k) = static_cast<float>(static_cast<double>(u.At(i, k)) / std::sqrt(square));
  }
  return absl::OkStatus();
}

// Upper triangular T of prod_k (I - 2 u_k u_k') = I - U T U': T_kk = 2, T_:k,k = -2 T_:k,:k U_:k'
// u_k.
Matrix CompactForm(const Matrix& u) {
  const Matrix gram = Multiply(Transposed(u), u);
  Matrix t(u.cols, u.cols);
  for (int64_t k = 0; k < u.cols; ++k) {
    t.At(k, k) = 2;
    for (int64_t i = 0; i < k; ++i) {
      double sum = 0;
      for (int64_t j = i; j < k; ++j)
        sum += static_cast<double>(t.At(i, j)) * static_cast<double>(gram.At(j, k));
      t.At(i, k) = static_cast<float>(-2 * sum);
    }
  }
  return t;
}

}  // namespace

StatusOr<AdapterProgram> LowerHra(AdapterSource& source, const LoweringContext& context) {
  POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields config, PeftConfigFields(source.config(), kKeys));
  POLYAD_ASSIGN_OR_RETURN(const int64_t rank, config.IntOr("r", 8, 1, kMaxRank));
  POLYAD_ASSIGN_OR_RETURN(const bool orthogonal, config.BoolOr("apply_GS", false));
  AdapterProgram program;
  POLYAD_ASSIGN_OR_RETURN(const std::vector<ModuleTensors> modules,
                          ModulesWith(source, context.spec, {"hra_u"}));
  for (const ModuleTensors& module : modules) {
    POLYAD_ASSIGN_OR_RETURN(Matrix u, module.Take("hra_u", module.in(), rank));
    POLYAD_RETURN_IF_ERROR(Normalise(module, u));
    if (orthogonal) u = OrthonormalColumns(u, u.cols);
    POLYAD_ASSIGN_OR_RETURN(const Matrix weight, BaseWeight(context, module.site()));
    Matrix b = Multiply(Multiply(weight, u), CompactForm(u));
    Scale(b, -1);
    AddLowRank(program, module.site(), Transposed(u), std::move(b));
  }
  return program;
}

}  // namespace polyad
