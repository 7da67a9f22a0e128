// A setup that AdapterHub saved: several adapters stacked, averaged, fused, or one of them for each
// task, as one adapter.
//   LoRA: stacked they are a chain, y = W x + s_b B_b A_b s_a B_a A_a x; averaged
//   (1/K) sum of w_k s_k B_k A_k x; of an average in a chain the next reads the sum, and a chain in
//   an average is one of its terms; stacked (IA)3 scales multiply.
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

struct AdaptersLora {
  size_t adapter = 0;
  HubLora lora;
};

bool IsScale(const HubLora& lora) { return lora.down.rows == 0; }

Status CheckComposable(const std::vector<AdaptersLora>& loras, const HubSetup& setup) {
  if (setup.adapters.size() == 1) return absl::OkStatus();
  for (const AdaptersLora& one : loras) {
    if (!one.lora.gates.empty()) return Refuse("use_gating of LoRA within a setup");
    if (one.lora.site.site == Site::kQkv) return Refuse("LoRA of GPT-2's c_attn within a setup");
    if (!IsScale(one.lora) && !one.lora.scale.empty()) return Refuse("use_dora within a setup");
    if (IsScale(one.lora) != IsScale(loras[0].lora)) return Refuse("LoRA together with (IA)3");
  }
  for (size_t i = 1; i < loras.size(); ++i) {
    if (loras[i].adapter == loras[i - 1].adapter) return Refuse("one module twice in one adapter");
  }
  return absl::OkStatus();
}

// `next` after `before`, which is null at the first of a stack.
StatusOr<HubLora> Chain(const HubLora* before, HubLora next) {
  if (before == nullptr) return next;
  if (IsScale(next)) {
    for (size_t o = 0; o < next.scale.size(); ++o) next.scale[o] *= before->scale[o];
    return next;
  }
  if (next.down.cols != before->up.rows) {
    return InvalidArgument(
        "%s: a stack needs LoRA modules with as many inputs as outputs, got "
        "%d and %d",
        kWhere, next.down.cols, before->up.rows);
  }
  next.up = Multiply(next.up, Multiply(next.down, before->up));
  next.down = before->down;
  return next;
}

// sum += weight * term, as one pair of factors.
void Join(const HubLora& term, double weight, HubLora& sum) {
  const int64_t rank = sum.up.cols;
  Matrix up(term.up.rows, rank + term.up.cols);
  for (int64_t row = 0; row < up.rows; ++row) {
    for (int64_t k = 0; k < rank; ++k) up.At(row, k) = sum.up.At(row, k);
    for (int64_t k = 0; k < term.up.cols; ++k) {
      up.At(row, rank + k) = static_cast<float>(weight * static_cast<double>(term.up.At(row, k)));
    }
  }
  sum.up = std::move(up);
  sum.down.rows += term.down.rows;
  sum.down.cols = term.down.cols;
  sum.down.values.insert(sum.down.values.end(), term.down.values.begin(), term.down.values.end());
}

// What a composition makes of one module's LoRAs; nothing where none of its adapters has one there.
class LoraComposer {
 public:
  using Made = std::optional<HubLora>;

  LoraComposer(const std::vector<AdaptersLora>& loras, size_t task) : loras_(loras), task_(task) {}

  StatusOr<Made> Compose(const HubNode& node, const HubLora* before) const {
    switch (node.composition) {
      case HubComposition::kSingle:
        return Single(node, before);
      case HubComposition::kStack:
        return Stack(node, before);
      case HubComposition::kAverage:
        return Average(node, before);
      case HubComposition::kMultiTask:
        return Single(node.children[task_], before);
      case HubComposition::kFuse:
        break;
    }
    if (Acts(node)) return Refuse("a fusion of LoRA or (IA)3");
    return Made();
  }

 private:
  bool Acts(const HubNode& node) const {
    return std::any_of(loras_.begin(), loras_.end(),
                       [&node](const AdaptersLora& one) { return node.Names(one.adapter); });
  }

  StatusOr<Made> Single(const HubNode& node, const HubLora* before) const {
    for (const AdaptersLora& one : loras_) {
      if (one.adapter != node.adapter) continue;
      POLYAD_ASSIGN_OR_RETURN(HubLora chain, Chain(before, one.lora));
      return Made(std::move(chain));
    }
    return Made();
  }

  StatusOr<Made> Stack(const HubNode& node, const HubLora* before) const {
    Made last;
    for (const HubNode& child : node.children) {
      POLYAD_ASSIGN_OR_RETURN(Made made, Compose(child, last ? &*last : before));
      if (made) last = std::move(made);
    }
    return last;
  }

  StatusOr<Made> Average(const HubNode& node, const HubLora* before) const {
    std::vector<std::pair<size_t, HubLora>> terms;
    for (size_t i = 0; i < node.children.size(); ++i) {
      const HubNode& child = node.children[i];
      POLYAD_ASSIGN_OR_RETURN(Made made, Compose(child, before));
      if (made) terms.emplace_back(i, *std::move(made));
    }
    if (terms.empty()) return Refuse("an average of which no adapter has a stacked module");
    for (const HubNode& child : node.children) {
      if (child.composition == HubComposition::kStack && !Acts(child)) {
        return Refuse("an average with a stack of which no adapter has the module");
      }
    }
    HubLora sum;
    sum.site = terms[0].second.site;
    for (const auto& [child, term] : terms) {
      if (IsScale(term)) return Refuse("an average of (IA)3");
      POLYAD_ASSIGN_OR_RETURN(const double weight, node.AverageWeight(child, terms.size()));
      if (sum.up.rows == 0) sum.up = Matrix(term.up.rows, 0);
      Join(term, weight, sum);
    }
    return Made(std::move(sum));
  }

  const std::vector<AdaptersLora>& loras_;
  const size_t task_;
};

Status LowerLoras(const HubSetup& setup, std::vector<HubChild>& children, size_t task,
                  const LoweringContext& context, AdapterProgram& program) {
  std::map<SiteRef, std::vector<AdaptersLora>> by_site;
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
  for (const auto& [site, loras] : by_site) {
    POLYAD_RETURN_IF_ERROR(CheckComposable(loras, setup));
    POLYAD_ASSIGN_OR_RETURN(const std::optional<HubLora> made,
                            LoraComposer(loras, task).Compose(setup.root, nullptr));
    if (made) AddHubLora(*made, program);
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
  std::map<std::string, HubFusion> fusions;
  for (const std::string& name : setup.fusions) {
    POLYAD_ASSIGN_OR_RETURN(fusions[name], ReadFusion(source, name));
  }
  int64_t task = 0;
  if (const HubNode* choice = setup.MultiTask(); choice != nullptr) {
    POLYAD_ASSIGN_OR_RETURN(task, TaskOf(context, static_cast<int64_t>(choice->children.size())));
  }
  AdapterProgram program;
  POLYAD_RETURN_IF_ERROR(LowerSetupBottlenecks(setup, children, fusions, context, program));
  POLYAD_RETURN_IF_ERROR(LowerLoras(setup, children, static_cast<size_t>(task), context, program));
  return program;
}

}  // namespace polyad
