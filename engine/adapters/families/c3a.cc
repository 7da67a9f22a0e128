// C3A: dW of circulant blocks. Lowers to Dense. Source: zoo section 5.3; peft 0.21.2, tuners/c3a.

#include "engine/adapters/families/family.h"
#include "engine/adapters/lowering_ops.h"
#include "engine/adapters/module_tensors.h"
#include "engine/adapters/peft_config.h"
#include "engine/adapters/transform_ops.h"

namespace polyad {
namespace {

constexpr std::string_view kOwnKeys[] = {"block_size", "block_size_pattern", "init_weights"};

// Block (m, n) has kernel[m, n, (column - row) mod b] / in at (row, column).
Matrix Circulant(const FloatTensor& kernel, int64_t in) {
  const int64_t rows = kernel.Dim(0);
  const int64_t cols = kernel.Dim(1);
  const int64_t block = kernel.Dim(2);
  Matrix delta(rows * block, cols * block);
  for (int64_t m = 0; m < rows; ++m) {
    for (int64_t n = 0; n < cols; ++n) {
      const float* stored = kernel.values.data() + (m * cols + n) * block;
      for (int64_t row = 0; row < block; ++row) {
        float* to = delta.Row(m * block + row) + n * block;
        for (int64_t column = 0; column < block; ++column) {
          to[column] = stored[(column - row + block) % block] / static_cast<float>(in);
        }
      }
    }
  }
  return delta;
}

}  // namespace

StatusOr<AdapterProgram> LowerC3a(AdapterSource& source, const LoweringContext& context) {
  POLYAD_RETURN_IF_ERROR(PeftConfigFields(source.config(), kOwnKeys).status());
  AdapterProgram program;
  POLYAD_ASSIGN_OR_RETURN(const std::vector<ModuleTensors> modules,
                          ModulesWith(source, context.spec, {"c3a_kernel"}));
  for (const ModuleTensors& module : modules) {
    POLYAD_ASSIGN_OR_RETURN(const FloatTensor kernel,
                            module.Floats("c3a_kernel", {kAnySize, kAnySize, kAnySize}));
    const int64_t block = kernel.Dim(2);
    if (kernel.Dim(0) * block != module.out() || kernel.Dim(1) * block != module.in()) {
      return FailedPrecondition(
          "tensor %s: expected blocks that fill [%d, %d], got %s: made for another base model",
          kernel.name, module.out(), module.in(), ShapeToString(kernel.shape));
    }
    AddDense(program, module.site(), Circulant(kernel, module.in()));
  }
  return program;
}

}  // namespace polyad
