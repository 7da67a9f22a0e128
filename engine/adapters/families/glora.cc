// GLoRA: W' = W + W * A + B, b' = b + b * D + E + W C; each part is nothing, a number, a vector or
// a product. Lowers to OutputScale or Dense, LowRank and Bias. Source: zoo section 5.2; peft
// 0.21.2, tuners/glora.

#include <algorithm>

#include "engine/adapters/families/family.h"
#include "engine/adapters/lowering_ops.h"
#include "engine/adapters/module_tensors.h"
#include "engine/adapters/peft_config.h"
#include "engine/adapters/transform_ops.h"

namespace polyad {
namespace {

constexpr std::string_view kOwnKeys[] = {"r", "config_A_B", "config_C", "config_D_E",
                                         "init_weights"};

// One of A ... E as stored: nothing (a tensor of zeros that stands for it), one number, one vector,
// or a product.
struct Path {
  enum class Form { kNone, kConstant, kVector, kProduct };
  Form form = Form::kNone;
  std::vector<float> values;  // one number or a vector
  Matrix down;                // [rows, r]: the product is down * up
  Matrix up;                  // [r, cols]
};

// `size` is that of what the path adds up to. Vectors are stored [rows, 1], those of D and E
// [rows].
StatusOr<Path> TakePath(const ModuleTensors& module, AdapterSource& source, char which,
                        std::pair<int64_t, int64_t> size) {
  const std::string leaf = std::string("glora_") + which;
  const bool is_flat = which == 'D' || which == 'E';
  Path path;
  if (module.Has(leaf + ".zeros")) {
    const std::string name = module.NameOf(leaf + ".zeros");
    POLYAD_ASSIGN_OR_RETURN(const OwnedTensor* tensor, source.TakeTensor(name));
    POLYAD_ASSIGN_OR_RETURN(const std::vector<float> zeros, ToFloats(*tensor));
    const std::vector<int64_t> expected =
        is_flat ? std::vector<int64_t>{size.first} : std::vector<int64_t>{size.first, size.second};
    if (tensor->shape != expected) {
      return FailedPrecondition("tensor %s: expected %s, got %s", name, ShapeToString(expected),
                                ShapeToString(tensor->shape));
    }
    const bool is_zero = std::all_of(zeros.begin(), zeros.end(), [](float x) { return x == 0; });
    if (!is_zero) return InvalidArgument("tensor %s: expected zeros", name);
    return path;
  }
  if (module.Has(leaf + ".Xd")) {
    path.form = Path::Form::kProduct;
    POLYAD_ASSIGN_OR_RETURN(FloatTensor down, module.Floats(leaf + ".Xd", {size.first, kAnySize}));
    POLYAD_ASSIGN_OR_RETURN(path.up, module.Take(leaf + ".Xu", down.Dim(1), size.second));
    path.down = std::move(down).AsMatrix();
    return path;
  }
  const std::string name = module.NameOf(leaf + ".X");
  const std::vector<int64_t> shape = source.ShapeOf(name);
  POLYAD_ASSIGN_OR_RETURN(const OwnedTensor* tensor, source.TakeTensor(name));
  POLYAD_ASSIGN_OR_RETURN(path.values, ToFloats(*tensor));
  const bool is_constant = shape == std::vector<int64_t>{1};
  const std::vector<int64_t> vector =
      is_flat ? std::vector<int64_t>{size.first} : std::vector<int64_t>{size.first, 1};
  if (!is_constant && shape != vector) {
    return FailedPrecondition("tensor %s: expected [1] or %s, got %s", name, ShapeToString(vector),
                              ShapeToString(shape));
  }
  path.form = is_constant ? Path::Form::kConstant : Path::Form::kVector;
  return path;
}

// The path as a vector of `size` numbers (C, D and E).
std::vector<float> AsVector(Path path, int64_t size) {
  if (path.form == Path::Form::kProduct) return Multiply(path.down, path.up).values;
  if (path.form == Path::Form::kVector) return std::move(path.values);
  const float value = path.form == Path::Form::kConstant ? path.values[0] : 0.0f;
  return std::vector<float>(static_cast<size_t>(size), value);
}

// W' = W + W * A: an output scale, or the dense change where A is a product.
Status LowerA(const ModuleTensors& module, Path path, const LoweringContext& context,
              AdapterProgram& program) {
  if (path.form == Path::Form::kNone) return absl::OkStatus();
  if (path.form == Path::Form::kProduct) {
    POLYAD_ASSIGN_OR_RETURN(const Matrix weight, BaseWeight(context, module.site()));
    Matrix delta = Multiply(path.down, path.up);
    for (size_t i = 0; i < delta.values.size(); ++i) delta.values[i] *= weight.values[i];
    AddDense(program, module.site(), std::move(delta));
    return absl::OkStatus();
  }
  std::vector<float> scale = AsVector(std::move(path), module.out());
  for (float& value : scale) value += 1.0f;
  return ScaleProduct(program, context, module.site(), std::move(scale));
}

// W' = W + B: low rank; a number or one per row is rank 1 with a row of ones.
void LowerB(const ModuleTensors& module, Path path, AdapterProgram& program) {
  if (path.form == Path::Form::kNone) return;
  if (path.form == Path::Form::kProduct) {
    AddLowRank(program, module.site(), std::move(path.up), std::move(path.down));
    return;
  }
  Matrix ones(1, module.in(), std::vector<float>(static_cast<size_t>(module.in()), 1.0f));
  Matrix column(module.out(), 1, AsVector(std::move(path), module.out()));
  AddLowRank(program, module.site(), std::move(ones), std::move(column));
}

// b' = b + b * D + E + W C, where the base has a bias; PEFT ignores C, D and E elsewhere.
Status LowerBias(const ModuleTensors& module, AdapterSource& source, const LoweringContext& context,
                 AdapterProgram& program) {
  POLYAD_ASSIGN_OR_RETURN(Path c, TakePath(module, source, 'C', {module.in(), 1}));
  POLYAD_ASSIGN_OR_RETURN(Path d, TakePath(module, source, 'D', {module.out(), 1}));
  POLYAD_ASSIGN_OR_RETURN(Path e, TakePath(module, source, 'E', {module.out(), 1}));
  POLYAD_ASSIGN_OR_RETURN(const BaseWeights* base, context.Base());
  POLYAD_ASSIGN_OR_RETURN(const std::vector<float> bias, base->Bias(module.site()));
  const bool has_any =
      c.form != Path::Form::kNone || d.form != Path::Form::kNone || e.form != Path::Form::kNone;
  if (bias.empty() || !has_any) return absl::OkStatus();
  std::vector<float> change = AsVector(std::move(e), module.out());
  const std::vector<float> scale = AsVector(std::move(d), module.out());
  for (size_t i = 0; i < change.size(); ++i) change[i] += bias[i] * scale[i];
  if (c.form != Path::Form::kNone) {
    POLYAD_ASSIGN_OR_RETURN(const Matrix weight, BaseWeight(context, module.site()));
    const Matrix column(module.in(), 1, AsVector(std::move(c), module.in()));
    const Matrix product = Multiply(weight, column);
    for (size_t i = 0; i < change.size(); ++i) change[i] += product.values[i];
  }
  AddBias(program, module.site(), std::move(change));
  return absl::OkStatus();
}

}  // namespace

StatusOr<AdapterProgram> LowerGlora(AdapterSource& source, const LoweringContext& context) {
  POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields config,
                          PeftConfigFields(source.config(), kOwnKeys));
  POLYAD_RETURN_IF_ERROR(config.IntOr("r", 4, 1, kMaxRank).status());
  AdapterProgram program;
  constexpr std::string_view kLeaves[] = {"glora_A.X", "glora_A.Xd", "glora_A.zeros"};
  POLYAD_ASSIGN_OR_RETURN(const std::vector<ModuleTensors> modules,
                          ModulesWith(source, context.spec, ModuleQuery{kLeaves}));
  for (const ModuleTensors& module : modules) {
    const std::pair<int64_t, int64_t> size{module.out(), module.in()};
    POLYAD_ASSIGN_OR_RETURN(Path a, TakePath(module, source, 'A', size));
    POLYAD_ASSIGN_OR_RETURN(Path b, TakePath(module, source, 'B', size));
    POLYAD_RETURN_IF_ERROR(LowerA(module, std::move(a), context, program));
    LowerB(module, std::move(b), program);
    POLYAD_RETURN_IF_ERROR(LowerBias(module, source, context, program));
  }
  return program;
}

}  // namespace polyad
