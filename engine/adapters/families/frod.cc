// FRoD: W in a basis V shared by a category of modules, its diagonal and a sparse rotation trained.
// Lowers to Dense. Source: zoo sections 3 and 10; peft 0.21.2, tuners/frod.

#include <cmath>
#include <map>

#include "engine/adapters/families/family.h"
#include "engine/adapters/linear_solve.h"
#include "engine/adapters/lowering_ops.h"
#include "engine/adapters/module_tensors.h"
#include "engine/adapters/peft_config.h"
#include "engine/adapters/transform_ops.h"

namespace polyad {
namespace {

constexpr std::string_view kOwnKeys[] = {
    "projection_prng_key", "save_projection",      "frod_dropout", "init_weights",
    "sparse_rate",         "regularization_alpha", "progressbar",  "runtime_offload_base_weight"};
constexpr int64_t kMaxSide = 2048;  // inverting more takes minutes

// What modules of one category share.
struct Basis {
  std::vector<double> v;        // [in, in]
  std::vector<double> inverse;  // of v
  IndexTensor places;           // [2, n]: rows, then columns of the sparse rotation
};

// The last two parts of the path, "self_attn_q_proj"; only the last where a number comes before it.
std::string CategoryOf(const std::string& path) {
  const size_t last = path.rfind('.');
  if (last == std::string::npos) return path;
  const size_t before = path.rfind('.', last - 1);
  const std::string parent = path.substr(before == std::string::npos ? 0 : before + 1,
                                         last - (before == std::string::npos ? 0 : before + 1));
  const bool is_number = parent.find_first_not_of("0123456789") == std::string::npos;
  return is_number ? path.substr(last + 1) : parent + "_" + path.substr(last + 1);
}

StatusOr<Basis> TakeBasis(AdapterSource& source, const std::string& category, int64_t in) {
  if (in > kMaxSide) {
    return Unimplemented("tensor base_model.frod_V.%s: FROD on more than %d inputs", category,
                         kMaxSide);
  }
  POLYAD_ASSIGN_OR_RETURN(const FloatTensor v,
                          TakeFloats(source, "base_model.frod_V." + category, {in, in}));
  Basis basis;
  basis.v.assign(v.values.begin(), v.values.end());
  POLYAD_ASSIGN_OR_RETURN(basis.places, TakeIndices(source, "base_model.frod_s_indices." + category,
                                                    in, {2, kAnySize}));
  POLYAD_ASSIGN_OR_RETURN(const IndexTensor size,
                          TakeIndices(source, "base_model.frod_s_size." + category, in + 1, {2}));
  if (size.values != std::vector<int64_t>{in, in}) {
    return FailedPrecondition("tensor base_model.frod_s_size.%s: expected [%d, %d], got [%d, %d]",
                              category, in, in, size.values[0], size.values[1]);
  }
  std::vector<double> used = basis.v;
  basis.inverse = IdentityMatrix(in);
  if (!SolveInPlace(used, basis.inverse, in, in)) {
    return InvalidArgument("tensor base_model.frod_V.%s: cannot be inverted", category);
  }
  return basis;
}

// W' - W with W' = U (S + diag l) V', where U's columns are those of W V'^-1 made of length one.
Matrix Change(const Matrix& weight, const Basis& basis, const std::vector<float>& diagonal,
              const std::vector<float>& entries) {
  const auto n = static_cast<size_t>(weight.cols);
  const auto rows = static_cast<size_t>(weight.rows);
  std::vector<double> u(rows * n, 0.0);
  std::vector<double> squares(n, 0.0);
  for (size_t i = 0; i < rows; ++i) {
    for (size_t j = 0; j < n; ++j) {
      double sum = 0;
      const float* w = weight.Row(static_cast<int64_t>(i));
      for (size_t k = 0; k < n; ++k) sum += static_cast<double>(w[k]) * basis.inverse[j * n + k];
      u[i * n + j] = sum;
      squares[j] += sum * sum;
    }
  }
  std::vector<double> turned(rows * n, 0.0);  // U (S + diag l)
  for (size_t j = 0; j < n; ++j) {
    const double length = std::sqrt(squares[j]);
    for (size_t i = 0; i < rows; ++i) {
      u[i * n + j] = length > 1e-12 ? u[i * n + j] / length : 0.0;
      turned[i * n + j] = u[i * n + j] * static_cast<double>(diagonal[j]);
    }
  }
  for (size_t e = 0; e < entries.size(); ++e) {
    const auto row = static_cast<size_t>(basis.places.values[e]);
    const auto col = static_cast<size_t>(basis.places.values[entries.size() + e]);
    for (size_t i = 0; i < rows; ++i) {
      turned[i * n + col] += u[i * n + row] * static_cast<double>(entries[e]);
    }
  }
  Matrix delta(weight.rows, weight.cols);
  for (size_t i = 0; i < rows; ++i) {
    for (size_t j = 0; j < n; ++j) {
      double sum =
          -static_cast<double>(weight.At(static_cast<int64_t>(i), static_cast<int64_t>(j)));
      for (size_t k = 0; k < n; ++k) sum += turned[i * n + k] * basis.v[j * n + k];
      delta.At(static_cast<int64_t>(i), static_cast<int64_t>(j)) = static_cast<float>(sum);
    }
  }
  return delta;
}

}  // namespace

StatusOr<AdapterProgram> LowerFrod(AdapterSource& source, const LoweringContext& context) {
  POLYAD_RETURN_IF_ERROR(PeftConfigFields(source.config(), kOwnKeys).status());
  AdapterProgram program;
  std::map<std::string, Basis> bases;
  POLYAD_ASSIGN_OR_RETURN(const std::vector<ModuleTensors> modules,
                          ModulesWith(source, context.spec, {"frod_lambda_l"}));
  for (const ModuleTensors& module : modules) {
    const std::string category = CategoryOf(module.path());
    auto found = bases.find(category);
    if (found == bases.end()) {
      POLYAD_ASSIGN_OR_RETURN(Basis basis, TakeBasis(source, category, module.in()));
      found = bases.emplace(category, std::move(basis)).first;
    }
    const Basis& basis = found->second;
    POLYAD_ASSIGN_OR_RETURN(const std::vector<float> diagonal,
                            module.TakeVector("frod_lambda_l", module.in()));
    POLYAD_ASSIGN_OR_RETURN(const std::vector<float> entries,
                            module.TakeVector("frod_lambda_s_values", basis.places.shape[1]));
    POLYAD_ASSIGN_OR_RETURN(const Matrix weight, BaseWeight(context, module.site()));
    AddDense(program, module.site(), Change(weight, basis, diagonal, entries));
  }
  return program;
}

}  // namespace polyad
