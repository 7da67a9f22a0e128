// DEFT and PaRa: dW = Q (s R - P'W) with P the clipped (relu) or orthonormalised (qr) left side;
// PaRa has no R. Lowers to LowRank. Source: zoo section 3; peft 0.21.2, tuners/deft.

#include <algorithm>
#include <string>
#include <string_view>

#include "engine/adapters/families/family.h"
#include "engine/adapters/lowering_ops.h"
#include "engine/adapters/module_tensors.h"
#include "engine/adapters/peft_config.h"

namespace polyad {
namespace {

constexpr std::string_view kKeys[] = {"r",    "decomposition_method", "init_scale",  "alpha",
                                      "para", "deft_dropout",         "init_weights"};

struct Method {
  int64_t rank = 0;
  double scale = 1;
  bool qr = false;
  bool removes_only = false;  // PaRa
};

StatusOr<Method> ReadMethod(const OrderedJsonFields& config) {
  Method method;
  POLYAD_ASSIGN_OR_RETURN(method.rank, config.IntOr("r", 8, 1, kMaxRank));
  POLYAD_ASSIGN_OR_RETURN(const double alpha,
                          config.NumberOr("alpha", static_cast<double>(method.rank), -1e9, 1e9));
  method.scale = alpha / static_cast<double>(method.rank);
  POLYAD_ASSIGN_OR_RETURN(method.removes_only, config.BoolOr("para", false));
  POLYAD_ASSIGN_OR_RETURN(const std::string name, config.StringOr("decomposition_method", "relu"));
  if (name != "relu" && name != "qr") {
    return Unimplemented("adapter_config.json: decomposition_method = '%s' is not served", name);
  }
  method.qr = name == "qr";
  return method;
}

}  // namespace

StatusOr<AdapterProgram> LowerDeft(AdapterSource& source, const LoweringContext& context) {
  POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields config, PeftConfigFields(source.config(), kKeys));
  POLYAD_ASSIGN_OR_RETURN(const Method method, ReadMethod(config));
  AdapterProgram program;
  POLYAD_ASSIGN_OR_RETURN(const std::vector<ModuleTensors> modules,
                          ModulesWith(source, context.spec, {"deft_P", "deft_R"}));
  for (const ModuleTensors& module : modules) {
    POLYAD_ASSIGN_OR_RETURN(Matrix q, module.Take("deft_P", module.out(), method.rank));
    Matrix right = q;
    if (method.qr && q.cols > q.rows) {
      return FailedPrecondition("module %s: rank %d is larger than its %d outputs", module.path(),
                                q.cols, q.rows);
    }
    if (method.qr) {
      q = HouseholderQ(q);
      right = q;
    } else {
      for (float& value : right.values) value = std::max(value, 0.0f);
    }
    POLYAD_ASSIGN_OR_RETURN(const Matrix weight, BaseWeight(context, module.site()));
    Matrix a = Multiply(Transposed(right), weight);
    Scale(a, -1);
    if (!method.removes_only) {
      POLYAD_ASSIGN_OR_RETURN(const Matrix r, module.Take("deft_R", method.rank, module.in()));
      for (size_t i = 0; i < a.values.size(); ++i)
        a.values[i] += static_cast<float>(method.scale) * r.values[i];
    }
    AddLowRank(program, module.site(), std::move(a), std::move(q));
  }
  return program;
}

}  // namespace polyad
