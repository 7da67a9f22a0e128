#include "engine/adapters/family_table.h"

namespace polyad {

#define POLYAD_FAMILY(name, lower) \
  StatusOr<AdapterProgram> lower(AdapterSource& source, const LoweringContext& context);
#include "engine/adapters/families/families.inc"
#undef POLYAD_FAMILY

namespace {

constexpr Family kFamilies[] = {
#define POLYAD_FAMILY(name, lower) {name, lower},
#include "engine/adapters/families/families.inc"
#undef POLYAD_FAMILY
};

bool IsEmpty(const AdapterProgram& program) {
  return program.ops.empty() && program.embedding_ops.empty() && program.norms.empty() &&
         program.hooks.empty();
}

}  // namespace

std::span<const Family> FamilyTable() { return kFamilies; }

StatusOr<AdapterProgram> LowerAdapter(AdapterSource& source, const LoweringContext& context) {
  POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields config,
                          OrderedJsonFields::Of(source.config(), "adapter_config.json"));
  POLYAD_ASSIGN_OR_RETURN(const std::string type, config.String("peft_type"));
  for (const Family& family : FamilyTable()) {
    if (family.peft_type != type) continue;
    POLYAD_ASSIGN_OR_RETURN(AdapterProgram program, family.lower(source, context));
    POLYAD_RETURN_IF_ERROR(source.CheckAllTaken());
    if (IsEmpty(program)) {
      return InvalidArgument("adapter_model.safetensors: no tensor changes the model");
    }
    program.family = type;
    return program;
  }
  return Unimplemented("adapter_config.json: peft_type '%s' is not served", type);
}

}  // namespace polyad
