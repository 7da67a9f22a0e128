// PEANuT: dW = scaling B h' where h [in, r] is a small network of W' with skip connections, depth
// layers each way. Lowers to LowRank. Source: zoo section 3; peft 0.21.2, tuners/peanut.

#include <string>
#include <string_view>
#include <vector>

#include "engine/adapters/activation_names.h"
#include "engine/adapters/families/family.h"
#include "engine/adapters/lowering_ops.h"
#include "engine/adapters/module_tensors.h"
#include "engine/adapters/peft_config.h"

namespace polyad {
namespace {

constexpr std::string_view kKeys[] = {"r", "depth", "act_fn", "scaling", "init_weights"};

Matrix Activated(Matrix m, ActivationKind activation) {
  for (float& value : m.values) {
    value = static_cast<float>(Activate(activation, static_cast<double>(value)));
  }
  return m;
}

StatusOr<Matrix> TakeLayer(const ModuleTensors& module, const char* stack, int64_t index,
                           int64_t rank) {
  return module.Take(std::string(stack) + "." + std::to_string(index) + ".weight", rank, rank);
}

// h [in, r]: encoders, each input kept, then decoders, each adding what its mirror kept.
StatusOr<Matrix> RunNetwork(const ModuleTensors& module, Matrix h, int64_t depth,
                            ActivationKind activation) {
  std::vector<Matrix> kept;
  const int64_t rank = h.cols;
  for (int64_t i = 0; i < depth; ++i) {
    POLYAD_ASSIGN_OR_RETURN(const Matrix layer, TakeLayer(module, "peanut_encoders", i, rank));
    kept.push_back(h);
    h = Activated(MultiplyTransposed(h, layer), activation);
  }
  for (int64_t i = 0; i < depth; ++i) {
    POLYAD_ASSIGN_OR_RETURN(const Matrix layer, TakeLayer(module, "peanut_decoders", i, rank));
    h = Activated(MultiplyTransposed(h, layer), activation);
    const Matrix& skip = kept[kept.size() - 1 - static_cast<size_t>(i)];
    for (size_t j = 0; j < h.values.size(); ++j) h.values[j] += skip.values[j];
  }
  return h;
}

}  // namespace

StatusOr<AdapterProgram> LowerPeanut(AdapterSource& source, const LoweringContext& context) {
  POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields config, PeftConfigFields(source.config(), kKeys));
  POLYAD_ASSIGN_OR_RETURN(const int64_t rank, config.IntOr("r", 32, 1, kMaxRank));
  POLYAD_ASSIGN_OR_RETURN(const int64_t depth, config.IntOr("depth", 0, 0, 64));
  POLYAD_ASSIGN_OR_RETURN(const double scaling, config.NumberOr("scaling", 1, -1e9, 1e9));
  POLYAD_ASSIGN_OR_RETURN(const std::string name, config.StringOr("act_fn", "relu"));
  POLYAD_ASSIGN_OR_RETURN(const ActivationKind activation,
                          ActivationNamed(name, "adapter_config.json: act_fn"));
  AdapterProgram program;
  POLYAD_ASSIGN_OR_RETURN(
      const std::vector<ModuleTensors> modules,
      ModulesWith(source, context.spec, {"peanut_A.weight", "peanut_B.weight"}));
  for (const ModuleTensors& module : modules) {
    POLYAD_ASSIGN_OR_RETURN(const Matrix a, module.Take("peanut_A.weight", rank, module.out()));
    POLYAD_ASSIGN_OR_RETURN(Matrix b, module.Take("peanut_B.weight", module.out(), rank));
    POLYAD_ASSIGN_OR_RETURN(const Matrix weight, BaseWeight(context, module.site()));
    Matrix h = Activated(Transposed(Multiply(a, weight)), activation);
    POLYAD_ASSIGN_OR_RETURN(h, RunNetwork(module, std::move(h), depth, activation));
    Scale(b, scaling);
    AddLowRank(program, module.site(), Transposed(h), std::move(b));
  }
  return program;
}

}  // namespace polyad
