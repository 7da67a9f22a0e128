// OFT: the base reads x turned block by block, R from a skew-symmetric matrix by a Cayley transform
// or its series. Lowers to BlockRotation. Source: zoo section 5.4; peft 0.21.2, tuners/oft.

#include <cmath>

#include "engine/adapters/families/family.h"
#include "engine/adapters/lowering_ops.h"
#include "engine/adapters/module_tensors.h"
#include "engine/adapters/peft_config.h"
#include "engine/adapters/rotations.h"
#include "engine/adapters/transform_ops.h"

namespace polyad {
namespace {

constexpr std::string_view kOwnKeys[] = {
    "r",           "oft_block_size",     "module_dropout",          "init_weights", "coft", "eps",
    "block_share", "use_cayley_neumann", "num_cayley_neumann_terms"};
constexpr int64_t kMaxBlock = 1024;
constexpr int64_t kMaxTerms = 64;

struct Settings {
  bool series = true;
  int64_t terms = 5;
  bool constrained = false;
  double eps = 6e-5;
};

StatusOr<Settings> ReadSettings(const OrderedJson& json) {
  POLYAD_RETURN_IF_ERROR(PeftConfigFields(json, kOwnKeys).status());
  POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields config,
                          OrderedJsonFields::Of(json, "adapter_config.json"));
  Settings settings;
  POLYAD_ASSIGN_OR_RETURN(const int64_t num_blocks, config.IntOr("r", 0, 0, 1 << 20));
  POLYAD_ASSIGN_OR_RETURN(const int64_t block, config.IntOr("oft_block_size", 32, 0, 1 << 20));
  if (num_blocks == 0 && block == 0) {
    return InvalidArgument("adapter_config.json: r and oft_block_size: expected one above 0");
  }
  POLYAD_ASSIGN_OR_RETURN(settings.series, config.BoolOr("use_cayley_neumann", true));
  POLYAD_ASSIGN_OR_RETURN(settings.terms,
                          config.IntOr("num_cayley_neumann_terms", 5, 1, kMaxTerms));
  POLYAD_ASSIGN_OR_RETURN(settings.constrained, config.BoolOr("coft", false));
  POLYAD_ASSIGN_OR_RETURN(settings.eps, config.NumberOr("eps", 6e-5, 0.0, 1e9));
  return settings;
}

// b of b (b - 1) / 2 numbers; 0 where there is no such b.
int64_t BlockSize(int64_t numbers) {
  const auto block = static_cast<int64_t>(
      std::llround((1.0 + std::sqrt(1.0 + 8.0 * static_cast<double>(numbers))) / 2.0));
  return numbers > 0 && block <= kMaxBlock && block * (block - 1) / 2 == numbers ? block : 0;
}

// coft: a skew matrix longer than eps / sqrt(stored rows) is shortened to it.
void Constrain(std::vector<double>& skew, double eps, int64_t stored_rows) {
  double square = 0;
  for (const double value : skew) square += value * value;
  const double limit = eps / std::sqrt(static_cast<double>(stored_rows));
  const double norm = std::sqrt(square);
  if (norm <= limit) return;
  for (double& value : skew) value *= limit / norm;
}

Status LowerModule(const ModuleTensors& module, const Settings& settings, AdapterProgram& program) {
  POLYAD_ASSIGN_OR_RETURN(const FloatTensor stored,
                          module.Floats("oft_R.weight", {kAnySize, kAnySize}));
  const int64_t rows = stored.Dim(0);
  const int64_t block = BlockSize(stored.Dim(1));
  const bool is_shared = rows == 1;
  if (block == 0 || module.in() % block != 0 || (!is_shared && rows * block != module.in())) {
    return FailedPrecondition(
        "tensor %s: expected rows of b (b - 1) / 2 numbers for blocks b that fill %d inputs, got "
        "%s",
        stored.name, module.in(), ShapeToString(stored.shape));
  }
  const int64_t num_blocks = module.in() / block;
  const auto numbers = static_cast<size_t>(stored.Dim(1));
  Matrix blocks(num_blocks * block, block);
  for (int64_t k = 0; k < num_blocks; ++k) {
    const size_t row = is_shared ? 0 : static_cast<size_t>(k);
    std::vector<double> skew =
        SkewFromUpper({stored.values.data() + row * numbers, numbers}, block);
    if (settings.constrained) Constrain(skew, settings.eps, rows);
    const std::vector<double> rotation =
        settings.series ? CayleySeries(skew, block, settings.terms) : CayleyTransform(skew, block);
    std::copy(rotation.begin(), rotation.end(), blocks.Row(k * block));
  }
  RotateInput(program, module.site(), std::move(blocks), {});
  return absl::OkStatus();
}

}  // namespace

StatusOr<AdapterProgram> LowerOft(AdapterSource& source, const LoweringContext& context) {
  POLYAD_ASSIGN_OR_RETURN(const Settings settings, ReadSettings(source.config()));
  AdapterProgram program;
  POLYAD_ASSIGN_OR_RETURN(const std::vector<ModuleTensors> modules,
                          ModulesWith(source, context.spec, {"oft_R.weight"}));
  for (const ModuleTensors& module : modules) {
    POLYAD_RETURN_IF_ERROR(LowerModule(module, settings, program));
  }
  return program;
}

}  // namespace polyad
