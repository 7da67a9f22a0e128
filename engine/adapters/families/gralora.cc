// GraLoRA: a k x k grid of adapters of rank r / k over blocks of inputs and outputs, with a plain
// pair of rank hybrid_r beside it; scale alpha / (r + hybrid_r). Lowers to LowRank of rank k r (+
// hybrid_r). Source: zoo section 5.1; peft 0.21.2, tuners/gralora.

#include <algorithm>
#include <string_view>

#include "engine/adapters/families/family.h"
#include "engine/adapters/lowering_ops.h"
#include "engine/adapters/module_tensors.h"
#include "engine/adapters/peft_config.h"

namespace polyad {
namespace {

constexpr std::string_view kKeys[] = {"r",        "alpha",           "gralora_k",
                                      "hybrid_r", "gralora_dropout", "init_weights"};

struct Grid {
  int64_t rank = 0;
  int64_t blocks = 0;  // k; r / k latent directions in each cell
  int64_t hybrid = 0;
  double scale = 0;
};

StatusOr<Grid> ReadGrid(const OrderedJsonFields& config) {
  Grid grid;
  POLYAD_ASSIGN_OR_RETURN(grid.rank, config.IntOr("r", 32, 1, kMaxRank));
  POLYAD_ASSIGN_OR_RETURN(grid.blocks, config.IntOr("gralora_k", 2, 1, kMaxRank));
  POLYAD_ASSIGN_OR_RETURN(grid.hybrid, config.IntOr("hybrid_r", 0, 0, kMaxRank));
  POLYAD_ASSIGN_OR_RETURN(const double alpha, config.NumberOr("alpha", 64, 0, 1e9));
  if (grid.rank % grid.blocks != 0 || grid.rank * grid.blocks > kMaxRank) {
    return InvalidArgument(
        "adapter_config.json: r = %d is not a grid of gralora_k = %d of rank at most %d", grid.rank,
        grid.blocks, kMaxRank);
  }
  grid.scale = alpha / static_cast<double>(grid.rank + grid.hybrid);
  return grid;
}

// Latent direction (n, j, s) reads input block n by A[n, :, j q + s] and writes output block j by
// B[j, n q + s, :].
StatusOr<FactorPair> Expand(const ModuleTensors& module, const Grid& grid) {
  const int64_t in = module.in() / grid.blocks;
  const int64_t out = module.out() / grid.blocks;
  const int64_t cell = grid.rank / grid.blocks;
  POLYAD_ASSIGN_OR_RETURN(const FloatTensor a,
                          module.Floats("gralora_A", {grid.blocks, in, grid.rank}));
  POLYAD_ASSIGN_OR_RETURN(const FloatTensor b,
                          module.Floats("gralora_B", {grid.blocks, grid.rank, out}));
  FactorPair pair{Matrix(module.out(), grid.blocks * grid.rank),
                  Matrix(grid.blocks * grid.rank, module.in())};
  for (int64_t n = 0; n < grid.blocks; ++n) {
    for (int64_t latent = 0; latent < grid.rank; ++latent) {
      const int64_t j = latent / cell;
      const int64_t row = n * grid.rank + latent;
      for (int64_t i = 0; i < in; ++i) {
        pair.right.At(row, n * in + i) =
            a.values[static_cast<size_t>((n * in + i) * grid.rank + latent)];
      }
      for (int64_t o = 0; o < out; ++o) {
        pair.left.At(j * out + o, row) =
            b.values[static_cast<size_t>((j * grid.rank + n * cell + latent % cell) * out + o)];
      }
    }
  }
  return pair;
}

}  // namespace

StatusOr<AdapterProgram> LowerGralora(AdapterSource& source, const LoweringContext& context) {
  POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields config, PeftConfigFields(source.config(), kKeys));
  POLYAD_ASSIGN_OR_RETURN(const Grid grid, ReadGrid(config));
  AdapterProgram program;
  POLYAD_ASSIGN_OR_RETURN(const std::vector<ModuleTensors> modules,
                          ModulesWith(source, context.spec, {"gralora_A", "gralora_B"}));
  for (const ModuleTensors& module : modules) {
    if (module.in() % grid.blocks != 0 || module.out() % grid.blocks != 0) {
      return FailedPrecondition("module %s: [%d, %d] is no grid of %d blocks", module.path(),
                                module.out(), module.in(), grid.blocks);
    }
    POLYAD_ASSIGN_OR_RETURN(FactorPair pair, Expand(module, grid));
    Scale(pair.left, grid.scale);
    AddLowRank(program, module.site(), std::move(pair.right), std::move(pair.left));
    if (grid.hybrid == 0) continue;
    POLYAD_ASSIGN_OR_RETURN(Matrix a,
                            module.Take("gralora_A_general.weight", grid.hybrid, module.in()));
    POLYAD_ASSIGN_OR_RETURN(Matrix b,
                            module.Take("gralora_B_general.weight", module.out(), grid.hybrid));
    Scale(b, grid.scale);
    AddLowRank(program, module.site(), std::move(a), std::move(b));
  }
  return program;
}

}  // namespace polyad
