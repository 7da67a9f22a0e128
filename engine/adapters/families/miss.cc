// MiSS: dW = M' [I I ..], one block M [r, out] over inputs cut into runs of r (the last one short);
// "mini" repeats M along the outputs; "bat" multiplies each r x r tile of W: dW_oi = W_oi M_o +
// M_o. Lowers to LowRank, "bat" over the smaller side. Source: zoo section 5.3; peft 0.21.2,
// tuners/miss.

#include <algorithm>
#include <string>
#include <string_view>

#include "engine/adapters/families/family.h"
#include "engine/adapters/lowering_ops.h"
#include "engine/adapters/module_tensors.h"
#include "engine/adapters/peft_config.h"

namespace polyad {
namespace {

constexpr std::string_view kKeys[] = {"r", "mini_r", "miss_dropout", "init_weights"};

// Row k reads every input whose place in its run of `rank` is k.
Matrix TiledIdentity(int64_t rank, int64_t in) {
  Matrix a(rank, in);
  for (int64_t j = 0; j < in; ++j) a.At(j % rank, j) = 1;
  return a;
}

Status LowerBlock(AdapterProgram& program, const ModuleTensors& module, int64_t rank,
                  int64_t width) {
  if (module.out() % width != 0) {
    return FailedPrecondition("module %s: %d outputs are no multiple of mini_r = %d", module.path(),
                              module.out(), width);
  }
  POLYAD_ASSIGN_OR_RETURN(const Matrix block, module.Take("miss_block", rank, width));
  Matrix b(module.out(), rank);
  for (int64_t o = 0; o < module.out(); ++o) {
    for (int64_t k = 0; k < rank; ++k) b.At(o, k) = block.At(k, o % width);
  }
  AddLowRank(program, module.site(), TiledIdentity(rank, module.in()), std::move(b));
  return absl::OkStatus();
}

// Output tile o of W, [rank, in], meets block M_o [rank, rank] from the right, tile by tile.
Status LowerBat(AdapterProgram& program, const ModuleTensors& module, const Matrix& weight,
                int64_t rank) {
  if (module.out() % rank != 0 || module.in() % rank != 0) {
    return FailedPrecondition("module %s: [%d, %d] is not made of tiles of %d", module.path(),
                              module.out(), module.in(), rank);
  }
  POLYAD_ASSIGN_OR_RETURN(const FloatTensor blocks,
                          module.Floats("miss_block", {module.out() / rank, rank, rank}));
  Matrix delta(module.out(), module.in());
  for (int64_t o = 0; o < module.out(); ++o) {
    const float* block = blocks.values.data() + o / rank * rank * rank;
    for (int64_t i = 0; i < module.in(); ++i) {
      const float* tile = weight.Row(o) + i / rank * rank;
      double sum = block[o % rank * rank + i % rank];
      for (int64_t k = 0; k < rank; ++k)
        sum += static_cast<double>(tile[k]) * static_cast<double>(block[k * rank + i % rank]);
      delta.At(o, i) = static_cast<float>(sum);
    }
  }
  AddDense(program, module.site(), std::move(delta));
  return absl::OkStatus();
}

// init_weights is true, false, "bat" or "mini".
StatusOr<std::string> KindOf(const OrderedJsonFields& config) {
  const OrderedJson* init = config.Find("init_weights");
  if (init == nullptr || init->is_boolean()) return std::string();
  POLYAD_ASSIGN_OR_RETURN(std::string kind, config.String("init_weights"));
  if (kind == "bat" || kind == "mini") return kind;
  return Unimplemented("adapter_config.json: init_weights = '%s' is not served", kind);
}

}  // namespace

StatusOr<AdapterProgram> LowerMiss(AdapterSource& source, const LoweringContext& context) {
  POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields config, PeftConfigFields(source.config(), kKeys));
  POLYAD_ASSIGN_OR_RETURN(const int64_t rank, config.IntOr("r", 64, 1, kMaxRank));
  POLYAD_ASSIGN_OR_RETURN(const int64_t mini_rank, config.IntOr("mini_r", 1, 1, kMaxRank));
  POLYAD_ASSIGN_OR_RETURN(const std::string kind, KindOf(config));
  AdapterProgram program;
  POLYAD_ASSIGN_OR_RETURN(const std::vector<ModuleTensors> modules,
                          ModulesWith(source, context.spec, {"miss_block"}));
  for (const ModuleTensors& module : modules) {
    if (kind == "bat") {
      POLYAD_ASSIGN_OR_RETURN(const Matrix weight, BaseWeight(context, module.site()));
      POLYAD_RETURN_IF_ERROR(LowerBat(program, module, weight, rank));
    } else {
      POLYAD_RETURN_IF_ERROR(
          LowerBlock(program, module, rank, kind == "mini" ? mini_rank : module.out()));
    }
  }
  return program;
}

}  // namespace polyad
