#include "engine/adapters/family_table.h"

#include "engine/adapters/families/lora.h"

namespace polyad {
namespace {

constexpr Family kFamilies[] = {
    {"LORA", LowerLora},
};

}  // namespace

std::span<const Family> FamilyTable() { return kFamilies; }

StatusOr<AdapterProgram> LowerAdapter(AdapterSource& source, const ModelSpec& spec) {
  POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields config,
                          OrderedJsonFields::Of(source.config(), "adapter_config.json"));
  POLYAD_ASSIGN_OR_RETURN(const std::string type, config.String("peft_type"));
  for (const Family& family : FamilyTable()) {
    if (family.peft_type != type) continue;
    POLYAD_ASSIGN_OR_RETURN(AdapterProgram program, family.lower(source, spec));
    POLYAD_RETURN_IF_ERROR(source.CheckAllTaken());
    if (program.ops.empty()) {
      return InvalidArgument("adapter_model.safetensors: no tensor changes the model");
    }
    program.family = type;
    return program;
  }
  return Unimplemented("adapter_config.json: peft_type '%s' is not served", type);
}

}  // namespace polyad
