// A setup that AdapterHub saved: several adapters stacked, averaged or fused, as one adapter.
//   LoRA: stacked they are a chain, y = W x + s_b B_b A_b s_a B_a A_a x; averaged
//   (1/K) sum of w_k s_k B_k A_k x; stacked (IA)3 scales multiply.
// Sources: zoo sections 4.2, 5.6 and 10.2; adapters 1.3.0, model_mixin.py, methods/.

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "engine/adapters/dense_math.h"
#include "engine/adapters/families/adapterhub_parts.h"
#include "engine/adapters/families/family.h"

namespace polyad {
namespace {

constexpr char kWhere[] = "adapter_setup.json";

Status Refuse(const std::string& why) { return Unimplemented("%s: %s is not served", kWhere, why); }

bool HasMethod(const HubChild& child, HubMethod method) {
  return std::any_of(child.config.parts.begin(), child.config.parts.end(),
                     [method](const HubPart& part) { return part.method == method; });
}

// What a folder's configuration file holds.
StatusOr<const OrderedJson*> ConfigOf(const AdapterSource& source, const std::string& folder) {
  const auto parts = source.config().find("parts");
  if (parts != source.config().end() && parts->is_object()) {
    if (const auto part = parts->find(folder); part != parts->end()) return &*part;
  }
  return InvalidArgument("%s: folder '%s' is missing", kWhere, folder.substr(0, 60));
}

StatusOr<HubChild> ReadChild(AdapterSource& source, const std::string& name) {
  HubChild child;
  POLYAD_ASSIGN_OR_RETURN(const OrderedJson* part_config, ConfigOf(source, name));
  POLYAD_ASSIGN_OR_RETURN(child.config, ParseHubConfig(*part_config));
  if (child.config.name != name) {
    return InvalidArgument("%s: folder '%s' holds adapter '%s'", kWhere, name.substr(0, 60),
                           child.config.name.substr(0, 60));
  }
  POLYAD_ASSIGN_OR_RETURN(child.tensors, HubTensors::Of(source, name, name + "/"));
  if (HasMethod(child, HubMethod::kReft)) return Refuse("ReFT within a setup");
  if (HasMethod(child, HubMethod::kPrefix)) return Refuse("a prefix within a setup");
  for (const HubPart& part : child.config.parts) {
    const auto found = part.options.find("inv_adapter");
    if (found != part.options.end() && found->is_string()) {
      return Refuse("inv_adapter within a setup");
    }
  }
  return child;
}

StatusOr<HubFusion> ReadFusion(AdapterSource& source, const std::string& name) {
  constexpr char kFile[] = "adapter_fusion_config.json";
  constexpr std::string_view kKnown[] = {"query",
                                         "key",
                                         "value",
                                         "query_before_ln",
                                         "temperature",
                                         "regularization",
                                         "dropout_prob",
                                         "value_before_softmax",
                                         "value_initialized",
                                         "residual_before"};
  POLYAD_ASSIGN_OR_RETURN(const OrderedJson* part, ConfigOf(source, name));
  if (!part->is_object() || !part->contains("config")) {
    return InvalidArgument("%s: config: expected an object", kFile);
  }
  const OrderedJson& config = *part->find("config");
  POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields fields, OrderedJsonFields::Of(config, kFile));
  for (const auto& [key, value] : config.items()) {
    if (std::find(std::begin(kKnown), std::end(kKnown), key) != std::end(kKnown)) continue;
    return Unimplemented("%s: config key '%s' is not understood", kFile, key.substr(0, 60));
  }
  HubFusion fusion;
  POLYAD_ASSIGN_OR_RETURN(fusion.query, fields.BoolOr("query", true));
  POLYAD_ASSIGN_OR_RETURN(fusion.key, fields.BoolOr("key", true));
  POLYAD_ASSIGN_OR_RETURN(fusion.value, fields.BoolOr("value", true));
  POLYAD_ASSIGN_OR_RETURN(fusion.query_before_sum, fields.BoolOr("query_before_ln", false));
  POLYAD_ASSIGN_OR_RETURN(const bool residual, fields.BoolOr("residual_before", false));
  if (residual) return Unimplemented("%s: residual_before = true is not served", kFile);
  POLYAD_ASSIGN_OR_RETURN(fusion.tensors, HubTensors::Of(source, name, name + "/"));
  return fusion;
}

// --- LoRA and (IA)3 ---

struct WeighedLora {
  size_t child = 0;
  HubLora lora;
};

bool IsScale(const HubLora& lora) { return lora.down.rows == 0; }

Status CheckComposable(const std::vector<WeighedLora>& loras, const HubSetup& setup) {
  if (setup.composition == HubComposition::kFuse) return Refuse("a fusion of LoRA or (IA)3");
  if (setup.composition == HubComposition::kAverage && IsScale(loras[0].lora)) {
    return Refuse("an average of (IA)3");
  }
  if (setup.adapters.size() == 1) return absl::OkStatus();
  for (const WeighedLora& one : loras) {
    if (!one.lora.gates.empty()) return Refuse("use_gating of LoRA within a setup");
    if (one.lora.site.site == Site::kQkv) return Refuse("LoRA of GPT-2's c_attn within a setup");
    if (!IsScale(one.lora) && !one.lora.scale.empty()) return Refuse("use_dora within a setup");
    if (IsScale(one.lora) != IsScale(loras[0].lora)) return Refuse("LoRA together with (IA)3");
  }
  for (size_t i = 1; i < loras.size(); ++i) {
    if (loras[i].child == loras[i - 1].child) return Refuse("one module twice in one adapter");
  }
  return absl::OkStatus();
}

StatusOr<HubLora> Chain(std::vector<WeighedLora> loras) {
  HubLora chain = std::move(loras[0].lora);
  for (size_t i = 1; i < loras.size(); ++i) {
    const HubLora& next = loras[i].lora;
    if (IsScale(chain)) {
      for (size_t o = 0; o < chain.scale.size(); ++o) chain.scale[o] *= next.scale[o];
      continue;
    }
    if (next.down.cols != chain.up.rows) {
      return InvalidArgument(
          "%s: a stack needs LoRA modules with as many inputs as outputs, got "
          "%d and %d",
          kWhere, next.down.cols, chain.up.rows);
    }
    chain.up = Multiply(next.up, Multiply(next.down, chain.up));
  }
  return chain;
}

Status AddAverage(const HubSetup& setup, std::vector<WeighedLora> loras, AdapterProgram& program) {
  for (WeighedLora& one : loras) {
    POLYAD_ASSIGN_OR_RETURN(const double weight, setup.AverageWeight(one.child, loras.size()));
    Scale(one.lora.up, weight);
    AddHubLora(one.lora, program);
  }
  return absl::OkStatus();
}

Status LowerLoras(const HubSetup& setup, std::vector<HubChild>& children,
                  const LoweringContext& context, AdapterProgram& program) {
  std::map<SiteRef, std::vector<WeighedLora>> by_site;
  for (size_t i = 0; i < children.size(); ++i) {
    for (const HubPart& part : children[i].config.parts) {
      if (part.method != HubMethod::kLora) continue;
      POLYAD_ASSIGN_OR_RETURN(std::vector<HubLora> loras,
                              ReadHubLoras(children[i].tensors, part, context));
      for (HubLora& lora : loras) {
        const SiteRef site = lora.site;
        by_site[site].push_back({i, std::move(lora)});
      }
    }
  }
  for (auto& [site, loras] : by_site) {
    POLYAD_RETURN_IF_ERROR(CheckComposable(loras, setup));
    if (setup.composition == HubComposition::kAverage) {
      POLYAD_RETURN_IF_ERROR(AddAverage(setup, std::move(loras), program));
      continue;
    }
    POLYAD_ASSIGN_OR_RETURN(const HubLora chain, Chain(std::move(loras)));
    AddHubLora(chain, program);
  }
  return absl::OkStatus();
}

}  // namespace

StatusOr<AdapterProgram> LowerAdapterHubSetup(AdapterSource& source,
                                              const LoweringContext& context) {
  if (!source.config().is_object() || !source.config().contains("setup")) {
    return InvalidArgument("%s: expected an object", kWhere);
  }
  POLYAD_ASSIGN_OR_RETURN(const HubSetup setup, ParseHubSetup(source.config()["setup"]));
  std::vector<HubChild> children;
  for (const std::string& name : setup.adapters) {
    POLYAD_ASSIGN_OR_RETURN(HubChild child, ReadChild(source, name));
    children.push_back(std::move(child));
  }
  std::optional<HubFusion> fusion;
  if (!setup.fusion.empty()) {
    POLYAD_ASSIGN_OR_RETURN(fusion, ReadFusion(source, setup.fusion));
  }
  AdapterProgram program;
  POLYAD_RETURN_IF_ERROR(
      LowerSetupBottlenecks(setup, children, fusion ? &*fusion : nullptr, context, program));
  POLYAD_RETURN_IF_ERROR(LowerLoras(setup, children, context, program));
  return program;
}

}  // namespace polyad
