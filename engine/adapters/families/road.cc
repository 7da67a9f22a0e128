// RoAd: z' = f * z + g * turn(z) on the base's output, bias included. Lowers to PairRotation.
// Source: zoo section 5.4; peft 0.21.2, tuners/road.

#include <cmath>

#include "engine/adapters/families/family.h"
#include "engine/adapters/lowering_ops.h"
#include "engine/adapters/module_tensors.h"
#include "engine/adapters/peft_config.h"
#include "engine/adapters/transform_ops.h"

namespace polyad {
namespace {

constexpr std::string_view kOwnKeys[] = {"variant", "group_size", "init_weights"};

struct Settings {
  int64_t variant = 1;  // road_1, road_2 or road_4
  int64_t group = 64;
};

StatusOr<Settings> ReadSettings(const OrderedJson& json) {
  POLYAD_RETURN_IF_ERROR(PeftConfigFields(json, kOwnKeys).status());
  POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields config,
                          OrderedJsonFields::Of(json, "adapter_config.json"));
  Settings settings;
  POLYAD_ASSIGN_OR_RETURN(const std::string variant, config.StringOr("variant", "road_1"));
  if (variant != "road_1" && variant != "road_2" && variant != "road_4") {
    return Unimplemented("adapter_config.json: variant '%s' is not served", variant);
  }
  settings.variant = variant[5] - '0';
  POLYAD_ASSIGN_OR_RETURN(settings.group, config.IntOr("group_size", 64, 2, 1 << 20));
  return settings;
}

// z' = first z + second turn(z), from the stored angles and sizes of each variant.
PairTurn TurnOf(const Settings& settings, const std::vector<float>& theta,
                const std::vector<float>& alpha, int64_t out) {
  PairTurn turn;
  turn.group = settings.group;
  turn.f.resize(static_cast<size_t>(out));
  turn.g.resize(static_cast<size_t>(out));
  const int64_t half = settings.group / 2;
  for (int64_t row = 0; row < out; ++row) {
    const int64_t group = row / settings.group;
    const int64_t within = row % settings.group;
    int64_t first = row;  // road_2
    int64_t second = row;
    if (settings.variant == 1) first = second = group * half + within % half;
    if (settings.variant == 4) {
      first = group * 2 * settings.group + within;
      second = first + settings.group;
    }
    const auto f = static_cast<size_t>(first);
    const auto g = static_cast<size_t>(second);
    turn.f[static_cast<size_t>(row)] =
        static_cast<float>(alpha[f] * std::cos(static_cast<double>(theta[f])));
    turn.g[static_cast<size_t>(row)] =
        static_cast<float>(alpha[g] * std::sin(static_cast<double>(theta[g])));
  }
  return turn;
}

Status LowerModule(const ModuleTensors& module, const Settings& settings, AdapterProgram& program) {
  const int64_t out = module.out();
  if (settings.group % 2 != 0 || out % settings.group != 0) {
    return InvalidArgument(
        "module %s: key 'group_size': expected an even number that divides %d outputs, got %d",
        module.path(), out, settings.group);
  }
  const int64_t count = settings.variant == 1 ? out / 2 : settings.variant == 2 ? out : 2 * out;
  POLYAD_ASSIGN_OR_RETURN(const std::vector<float> theta, module.TakeVector("road_theta", count));
  POLYAD_ASSIGN_OR_RETURN(const std::vector<float> alpha, module.TakeVector("road_alpha", count));
  TurnOutput(program, module.site(), TurnOf(settings, theta, alpha, out));
  return absl::OkStatus();
}

}  // namespace

StatusOr<AdapterProgram> LowerRoad(AdapterSource& source, const LoweringContext& context) {
  POLYAD_ASSIGN_OR_RETURN(const Settings settings, ReadSettings(source.config()));
  AdapterProgram program;
  POLYAD_ASSIGN_OR_RETURN(const std::vector<ModuleTensors> modules,
                          ModulesWith(source, context.spec, {"road_theta"}));
  for (const ModuleTensors& module : modules) {
    POLYAD_RETURN_IF_ERROR(LowerModule(module, settings, program));
  }
  return program;
}

}  // namespace polyad
