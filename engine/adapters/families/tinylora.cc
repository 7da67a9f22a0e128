// TinyLoRA: dW = B (sum_i v_i P_i) A with A, B and P fixed and stored, and v shared by groups of
// sites counted in the order the model runs them. Lowers to LowRank. Source: zoo section 5.1; peft
// 0.21.2, tuners/tinylora.

#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>

#include "engine/adapters/families/family.h"
#include "engine/adapters/lowering_ops.h"
#include "engine/adapters/module_tensors.h"
#include "engine/adapters/peft_config.h"

namespace polyad {
namespace {

constexpr std::string_view kKeys[] = {"r",
                                      "u",
                                      "weight_tying",
                                      "projection_seed",
                                      "save_projection",
                                      "init_v_bound",
                                      "tinylora_dropout",
                                      "init_weights"};

// Python's round(): halves to the even neighbour.
int64_t RoundHalfEven(double value) { return static_cast<int64_t>(std::nearbyint(value)); }

struct Grouping {
  int64_t groups = 1;
  int64_t size = 1;
  int64_t Of(int64_t index) const { return std::min(index / size, groups - 1); }
};

Grouping GroupsOf(int64_t num_modules, double tying) {
  Grouping grouping;
  grouping.groups =
      std::max<int64_t>(1, RoundHalfEven(static_cast<double>(num_modules) * (1.0 - tying)));
  grouping.size = std::max<int64_t>(1, num_modules / grouping.groups);
  return grouping;
}

}  // namespace

StatusOr<AdapterProgram> LowerTinyLora(AdapterSource& source, const LoweringContext& context) {
  POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields config, PeftConfigFields(source.config(), kKeys));
  POLYAD_ASSIGN_OR_RETURN(const int64_t rank, config.IntOr("r", 2, 1, kMaxRank));
  POLYAD_ASSIGN_OR_RETURN(const int64_t width, config.IntOr("u", 64, 1, 1 << 20));
  POLYAD_ASSIGN_OR_RETURN(const double tying, config.NumberOr("weight_tying", 0, 0, 1));
  POLYAD_ASSIGN_OR_RETURN(
      std::vector<ModuleTensors> modules,
      ModulesWith(source, context.spec, {"tinylora_A", "tinylora_B", "tinylora_P"}));
  SortByModelOrder(modules);
  const Grouping grouping = GroupsOf(static_cast<int64_t>(modules.size()), tying);
  std::vector<FloatTensor> mixes(static_cast<size_t>(grouping.groups));
  AdapterProgram program;
  for (size_t index = 0; index < modules.size(); ++index) {
    const ModuleTensors& module = modules[index];
    const int64_t group = grouping.Of(static_cast<int64_t>(index));
    FloatTensor& v = mixes[static_cast<size_t>(group)];
    if (v.values.empty()) {
      POLYAD_ASSIGN_OR_RETURN(
          v, TakeFloats(source, "base_model.tinylora_v." + std::to_string(group), {width}));
    }
    POLYAD_ASSIGN_OR_RETURN(Matrix a, module.Take("tinylora_A", rank, module.in()));
    POLYAD_ASSIGN_OR_RETURN(const Matrix b, module.Take("tinylora_B", module.out(), rank));
    POLYAD_ASSIGN_OR_RETURN(FloatTensor p, module.Floats("tinylora_P", {width, rank, rank}));
    const Matrix mixed =
        Multiply(Matrix(1, width, v.values), Matrix(width, rank * rank, std::move(p.values)));
    AddLowRank(program, module.site(), std::move(a), Multiply(b, Matrix(rank, rank, mixed.values)));
  }
  return program;
}

}  // namespace polyad
