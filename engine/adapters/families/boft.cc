// BOFT: y = s * (W x1) + b, x1 = x M with M a product of butterfly stages P D P', D blocks of
// rotations. Lowers to one BlockRotation a stage and OutputScale. Source: zoo section 5.4; peft
// 0.21.2, tuners/boft.

#include <algorithm>

#include "engine/adapters/families/family.h"
#include "engine/adapters/lowering_ops.h"
#include "engine/adapters/module_tensors.h"
#include "engine/adapters/peft_config.h"
#include "engine/adapters/rotations.h"
#include "engine/adapters/transform_ops.h"

namespace polyad {
namespace {

constexpr std::string_view kOwnKeys[] = {"boft_block_size", "boft_block_num",
                                         "boft_n_butterfly_factor", "boft_dropout", "init_weights"};
constexpr int64_t kMaxStages = 16;
constexpr int64_t kMaxBlock = 1024;

// Where each input of the blocks comes from and goes back to. P lists chunks of 2^stage blocks, in
// each the even half-blocks and then the odd ones; the blocks see P' x, so this is P's inverse.
std::vector<int32_t> ButterflyPermutation(int64_t stage, int64_t block, int64_t width) {
  std::vector<int32_t> permutation(static_cast<size_t>(width));
  const int64_t half = block / 2;
  const int64_t chunk = block << stage;
  int32_t row = 0;
  for (int64_t begin = 0; begin < width; begin += chunk) {
    for (int64_t parity = 0; parity < 2; ++parity) {
      for (int64_t at = begin + parity * half; at < begin + chunk; at += 2 * half) {
        for (int64_t i = 0; i < half; ++i) permutation[static_cast<size_t>(at + i)] = row++;
      }
    }
  }
  return permutation;
}

// The rotations of one stage, one below another.
Matrix StageBlocks(const float* stored, int64_t num_blocks, int64_t block) {
  Matrix blocks(num_blocks * block, block);
  const auto numbers = static_cast<size_t>(block * block);
  for (int64_t k = 0; k < num_blocks; ++k) {
    const std::vector<double> rotation = CayleyTransform(
        SkewPart({stored + static_cast<size_t>(k) * numbers, numbers}, block), block);
    std::copy(rotation.begin(), rotation.end(), blocks.Row(k * block));
  }
  return blocks;
}

Status LowerModule(const ModuleTensors& module, const LoweringContext& context,
                   AdapterProgram& program) {
  POLYAD_ASSIGN_OR_RETURN(const FloatTensor stored,
                          module.Floats("boft_R", {kAnySize, kAnySize, kAnySize, kAnySize}));
  POLYAD_ASSIGN_OR_RETURN(FloatTensor scale, module.Floats("boft_s", {module.out(), 1}));
  const int64_t stages = stored.Dim(0);
  const int64_t num_blocks = stored.Dim(1);
  const int64_t block = stored.Dim(2);
  const bool fits = block == stored.Dim(3) && block >= 1 && block <= kMaxBlock &&
                    num_blocks == module.in() / block && num_blocks * block == module.in() &&
                    stages >= 1 && stages <= kMaxStages;
  if (!fits) {
    return FailedPrecondition("tensor %s: expected [stages, n, b, b] with n b = %d, got %s",
                              stored.name, module.in(), ShapeToString(stored.shape));
  }
  if (stages > 1 && (block % 2 != 0 || num_blocks % (int64_t{1} << (stages - 1)) != 0)) {
    return InvalidArgument("tensor %s: %d stages need even blocks in chunks of %d, got %s",
                           stored.name, stages, int64_t{1} << (stages - 1),
                           ShapeToString(stored.shape));
  }
  const auto numbers = static_cast<size_t>(num_blocks * block * block);
  for (int64_t stage = stages - 1; stage >= 0; --stage) {  // x1 = x M_last ... M_0
    std::vector<int32_t> permutation;
    if (stage > 0) permutation = ButterflyPermutation(stage, block, module.in());
    RotateInput(
        program, module.site(),
        StageBlocks(stored.values.data() + static_cast<size_t>(stage) * numbers, num_blocks, block),
        std::move(permutation));
  }
  return ScaleProduct(program, context, module.site(), std::move(scale.values));
}

}  // namespace

StatusOr<AdapterProgram> LowerBoft(AdapterSource& source, const LoweringContext& context) {
  POLYAD_RETURN_IF_ERROR(PeftConfigFields(source.config(), kOwnKeys).status());
  AdapterProgram program;
  POLYAD_ASSIGN_OR_RETURN(const std::vector<ModuleTensors> modules,
                          ModulesWith(source, context.spec, {"boft_R"}));
  for (const ModuleTensors& module : modules) {
    POLYAD_RETURN_IF_ERROR(LowerModule(module, context, program));
  }
  return program;
}

}  // namespace polyad
