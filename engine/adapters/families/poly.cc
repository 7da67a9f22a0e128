// Poly: a task mixes n_skills small adapters with weights sigmoid(logits[task]), normalised,
// separately in each split of inputs and outputs; y += x A B / r. A version serves one task. Lowers
// to LowRank. Source: zoo section 5.6; peft 0.21.2, tuners/poly.

#include <cmath>
#include <string>
#include <string_view>

#include "engine/adapters/families/family.h"
#include "engine/adapters/lowering_ops.h"
#include "engine/adapters/module_tensors.h"
#include "engine/adapters/peft_config.h"

namespace polyad {
namespace {

constexpr std::string_view kKeys[] = {"r",        "poly_type", "n_tasks",
                                      "n_skills", "n_splits",  "init_weights"};

struct Shelf {
  int64_t rank = 0;
  int64_t tasks = 0;
  int64_t skills = 0;
  int64_t splits = 0;
  int64_t task = 0;  // the one served
};

// Weights of each skill in each split, [splits, skills].
StatusOr<Matrix> Weights(const ModuleTensors& module, const Shelf& shelf) {
  POLYAD_ASSIGN_OR_RETURN(const Matrix logits, module.Take("poly_router.module_logits", shelf.tasks,
                                                           shelf.splits * shelf.skills));
  Matrix weights(shelf.splits, shelf.skills);
  for (int64_t split = 0; split < shelf.splits; ++split) {
    double sum = 1e-12;
    for (int64_t skill = 0; skill < shelf.skills; ++skill) {
      const double logit = logits.At(shelf.task, split * shelf.skills + skill);
      weights.At(split, skill) = static_cast<float>(1 / (1 + std::exp(-logit)));
      sum += static_cast<double>(weights.At(split, skill));
    }
    for (int64_t skill = 0; skill < shelf.skills; ++skill) {
      weights.At(split, skill) =
          static_cast<float>(static_cast<double>(weights.At(split, skill)) / sum);
    }
  }
  return weights;
}

// The skills of a tensor [splits, skills, ..] mixed within each split: [splits, elements of one].
Matrix Mixed(const FloatTensor& tensor, const Matrix& weights) {
  const int64_t each = static_cast<int64_t>(tensor.values.size()) / (weights.rows * weights.cols);
  Matrix result(weights.rows, each);
  for (int64_t split = 0; split < weights.rows; ++split) {
    for (int64_t skill = 0; skill < weights.cols; ++skill) {
      const float* from = tensor.values.data() + (split * weights.cols + skill) * each;
      for (int64_t i = 0; i < each; ++i) result.At(split, i) += weights.At(split, skill) * from[i];
    }
  }
  return result;
}

StatusOr<Shelf> ReadShelf(const OrderedJsonFields& config) {
  Shelf shelf;
  POLYAD_ASSIGN_OR_RETURN(shelf.rank, config.IntOr("r", 8, 1, kMaxRank));
  POLYAD_ASSIGN_OR_RETURN(shelf.tasks, config.IntOr("n_tasks", 1, 1, 1 << 20));
  POLYAD_ASSIGN_OR_RETURN(shelf.skills, config.IntOr("n_skills", 4, 1, 1 << 12));
  POLYAD_ASSIGN_OR_RETURN(shelf.splits, config.IntOr("n_splits", 1, 1, 1 << 12));
  POLYAD_ASSIGN_OR_RETURN(const std::string type, config.StringOr("poly_type", "poly"));
  if (type != "poly")
    return Unimplemented("adapter_config.json: poly_type = '%s' is not served", type);
  return shelf;
}

}  // namespace

StatusOr<AdapterProgram> LowerPoly(AdapterSource& source, const LoweringContext& context) {
  POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields config, PeftConfigFields(source.config(), kKeys));
  POLYAD_ASSIGN_OR_RETURN(Shelf shelf, ReadShelf(config));
  POLYAD_ASSIGN_OR_RETURN(shelf.task, TaskOf(context, shelf.tasks));
  AdapterProgram program;
  POLYAD_ASSIGN_OR_RETURN(const std::vector<ModuleTensors> modules,
                          ModulesWith(source, context.spec,
                                      {"poly_lora_A", "poly_lora_B", "poly_router.module_logits"}));
  for (const ModuleTensors& module : modules) {
    if (module.in() % shelf.splits != 0 || module.out() % shelf.splits != 0) {
      return FailedPrecondition("module %s: [%d, %d] does not split in %d", module.path(),
                                module.out(), module.in(), shelf.splits);
    }
    const int64_t in = module.in() / shelf.splits;
    const int64_t out = module.out() / shelf.splits;
    POLYAD_ASSIGN_OR_RETURN(const Matrix weights, Weights(module, shelf));
    POLYAD_ASSIGN_OR_RETURN(
        const FloatTensor a,
        module.Floats("poly_lora_A", {shelf.splits, shelf.skills, in, shelf.rank}));
    POLYAD_ASSIGN_OR_RETURN(
        const FloatTensor b,
        module.Floats("poly_lora_B", {shelf.splits, shelf.skills, shelf.rank, out}));
    Matrix down = Transposed(Matrix(module.in(), shelf.rank, Mixed(a, weights).values));
    const Matrix mixed = Mixed(b, weights);  // [splits, rank * out]
    Matrix up(module.out(), shelf.rank);
    for (int64_t o = 0; o < module.out(); ++o) {
      for (int64_t k = 0; k < shelf.rank; ++k) up.At(o, k) = mixed.At(o / out, k * out + o % out);
    }
    Scale(up, 1 / static_cast<double>(shelf.rank));
    AddLowRank(program, module.site(), std::move(down), std::move(up));
  }
  return program;
}

}  // namespace polyad
