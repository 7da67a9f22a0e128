// RandLoRA: dW = alpha / r B' A' with A' = lambda * A * gamma and fixed random bases A, B, cut to
// the site; the pairs of inner indices are ordered otherwise in A' than in B', as PEFT has it. Full
// rank, so it lowers to LowRank over the smaller side. Source: zoo sections 5.1 and 10; peft
// 0.21.2, tuners/randlora.

#include <algorithm>
#include <string>
#include <string_view>

#include "engine/adapters/families/family.h"
#include "engine/adapters/lowering_ops.h"
#include "engine/adapters/module_tensors.h"
#include "engine/adapters/peft_config.h"

namespace polyad {
namespace {

constexpr std::string_view kKeys[] = {
    "r",      "randlora_alpha", "projection_prng_key", "save_projection",
    "sparse", "very_sparse",    "randlora_dropout",    "init_weights"};

struct Bases {
  FloatTensor a;  // [rank, 1, smallest side of all]
  FloatTensor b;  // [largest side of all, bases, rank]
};

// The bases stand at the top of the file and are repeated under every site, in equal copies.
StatusOr<Bases> TakeBases(AdapterSource& source, int64_t rank) {
  Bases bases;
  POLYAD_ASSIGN_OR_RETURN(const std::string a, SharedTensorName(source, "base_model.randlora_A"));
  POLYAD_ASSIGN_OR_RETURN(const std::string b, SharedTensorName(source, "base_model.randlora_B"));
  POLYAD_ASSIGN_OR_RETURN(bases.a, TakeFloats(source, a, {rank, 1, kAnySize}));
  POLYAD_ASSIGN_OR_RETURN(bases.b, TakeFloats(source, b, {kAnySize, kAnySize, rank}));
  return bases;
}

Status TakeCopy(const ModuleTensors& module, std::string_view leaf, const FloatTensor& original) {
  if (!module.Has(leaf)) return absl::OkStatus();
  POLYAD_ASSIGN_OR_RETURN(const FloatTensor copy,
                          module.Floats(leaf, {kAnySize, kAnySize, kAnySize}));
  if (copy.shape == original.shape && copy.values == original.values) return absl::OkStatus();
  return InvalidArgument("tensor %s: differs from %s", copy.name, original.name);
}

// B' A' [larger side, smaller side]. A' counts its inner index rank first, B' bases first.
StatusOr<Matrix> Product(const ModuleTensors& module, const Bases& bases, int64_t rank) {
  const int64_t small = std::min(module.in(), module.out());
  const int64_t large = std::max(module.in(), module.out());
  const int64_t count = (small + rank - 1) / rank;
  const int64_t stored = bases.b.Dim(1);
  if (bases.a.Dim(2) < small || bases.b.Dim(0) < large || stored < count) {
    return FailedPrecondition("module %s: needs bases of [%d, %d] and %d of them, got %s and %s",
                              module.path(), large, small, count, ShapeToString(bases.b.shape),
                              ShapeToString(bases.a.shape));
  }
  POLYAD_ASSIGN_OR_RETURN(const Matrix lambda, module.Take("randlora_lambda", rank, count));
  POLYAD_ASSIGN_OR_RETURN(const Matrix gamma, module.Take("randlora_gamma", count, small));
  Matrix a(rank * count, small);
  for (int64_t i = 0; i < rank; ++i) {
    for (int64_t n = 0; n < count; ++n) {
      for (int64_t j = 0; j < small; ++j) {
        a.At(i * count + n, j) = lambda.At(i, n) *
                                 bases.a.values[static_cast<size_t>(i * bases.a.Dim(2) + j)] *
                                 gamma.At(n, j);
      }
    }
  }
  Matrix b(large, count * rank);
  for (int64_t o = 0; o < large; ++o) {
    const float* row = bases.b.values.data() + o * stored * rank;
    std::copy(row, row + count * rank, b.Row(o));
  }
  return Multiply(b, a);
}

}  // namespace

StatusOr<AdapterProgram> LowerRandlora(AdapterSource& source, const LoweringContext& context) {
  POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields config, PeftConfigFields(source.config(), kKeys));
  POLYAD_ASSIGN_OR_RETURN(const int64_t rank, config.IntOr("r", 32, 1, kMaxRank));
  POLYAD_ASSIGN_OR_RETURN(const double alpha, config.NumberOr("randlora_alpha", 640, 0, 1e9));
  POLYAD_ASSIGN_OR_RETURN(const Bases bases, TakeBases(source, rank));
  AdapterProgram program;
  POLYAD_ASSIGN_OR_RETURN(const std::vector<ModuleTensors> modules,
                          ModulesWith(source, context.spec, {"randlora_lambda", "randlora_gamma"}));
  for (const ModuleTensors& module : modules) {
    POLYAD_RETURN_IF_ERROR(TakeCopy(module, "randlora_A", bases.a));
    POLYAD_RETURN_IF_ERROR(TakeCopy(module, "randlora_B", bases.b));
    POLYAD_ASSIGN_OR_RETURN(Matrix delta, Product(module, bases, rank));
    if (module.in() > module.out()) delta = Transposed(delta);
    Scale(delta, alpha / static_cast<double>(rank));
    AddDense(program, module.site(), std::move(delta));
  }
  return program;
}

}  // namespace polyad
