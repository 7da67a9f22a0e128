#include "engine/adapters/adapterhub_setup.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <numeric>

#include "engine/io/file.h"

namespace polyad {
namespace {

constexpr char kWhere[] = "adapter_setup.json";
constexpr size_t kMaxAdapters = 16;

Status CheckKeys(const OrderedJson& json, std::initializer_list<std::string_view> known) {
  for (const auto& [key, value] : json.items()) {
    if (value.is_null() || std::find(known.begin(), known.end(), key) != known.end()) continue;
    return Unimplemented("%s: key '%s' is not understood", kWhere, key.substr(0, 60));
  }
  return absl::OkStatus();
}

StatusOr<HubComposition> ReadType(const std::string& type) {
  if (type == "single") return HubComposition::kSingle;
  if (type == "Stack") return HubComposition::kStack;
  if (type == "Average") return HubComposition::kAverage;
  if (type == "Fuse") return HubComposition::kFuse;
  if (type == "MultiTask") return HubComposition::kMultiTask;
  return Unimplemented("%s: type '%s' is not served", kWhere, type.substr(0, 40));
}

// What the library runs within a composition that stands `depth` compositions deep.
bool MayHold(HubComposition outer, HubComposition inner, int64_t depth) {
  if (inner == HubComposition::kSingle) return true;
  switch (outer) {
    case HubComposition::kStack:
      return depth == 0 && inner != HubComposition::kStack;
    case HubComposition::kAverage:
    case HubComposition::kFuse:
      return inner == HubComposition::kStack;
    case HubComposition::kMultiTask:
    case HubComposition::kSingle:
      return false;
  }
  return false;
}

class Reader {
 public:
  explicit Reader(HubSetup& setup) : setup_(setup) {}

  StatusOr<HubNode> Read(const OrderedJson& json, int64_t depth) {
    POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields fields, OrderedJsonFields::Of(json, kWhere));
    POLYAD_RETURN_IF_ERROR(CheckKeys(json, {"type", "children", "kwargs"}));
    HubNode node;
    POLYAD_ASSIGN_OR_RETURN(const std::string type, fields.String("type"));
    POLYAD_ASSIGN_OR_RETURN(node.composition, ReadType(type));
    if (node.composition == HubComposition::kSingle) {
      POLYAD_RETURN_IF_ERROR(ReadSingle(fields, node));
      return node;
    }
    POLYAD_RETURN_IF_ERROR(ReadChildren(fields, type, depth, node));
    if (node.composition == HubComposition::kAverage) {
      POLYAD_RETURN_IF_ERROR(ReadWeights(fields, node));
    } else if (fields.Has("kwargs") && !fields.Find("kwargs")->empty()) {
      return Unimplemented("%s: kwargs of a %s are not understood", kWhere, type);
    }
    if (node.composition == HubComposition::kFuse) POLYAD_RETURN_IF_ERROR(NameFusion(node));
    return node;
  }

 private:
  Status ReadSingle(const OrderedJsonFields& fields, HubNode& node) {
    POLYAD_ASSIGN_OR_RETURN(const std::vector<std::string> names, fields.StringsOr("children", {}));
    if (names.size() != 1 || !IsPlainFileName(names[0])) {
      return InvalidArgument("%s: children: expected the name of one adapter", kWhere);
    }
    std::vector<std::string>& all = setup_.adapters;
    if (std::find(all.begin(), all.end(), names[0]) != all.end()) {
      return Unimplemented("%s: adapter '%s' twice is not served", kWhere, names[0].substr(0, 60));
    }
    if (all.size() == kMaxAdapters) {
      return ResourceExhausted("%s: more than %d adapters", kWhere, kMaxAdapters);
    }
    node.adapter = all.size();
    all.push_back(names[0]);
    return absl::OkStatus();
  }

  Status ReadChildren(const OrderedJsonFields& fields, const std::string& type, int64_t depth,
                      HubNode& node) {
    const OrderedJson* children = fields.Find("children");
    if (children == nullptr || !children->is_array() || children->empty() ||
        children->size() > kMaxAdapters) {
      return InvalidArgument("%s: children: expected a list of 1 to %d", kWhere, kMaxAdapters);
    }
    for (const OrderedJson& child : *children) {
      if (depth > 2) return InvalidArgument("%s: nested too deep", kWhere);
      POLYAD_ASSIGN_OR_RETURN(HubNode read, Read(child, depth + 1));
      if (!MayHold(node.composition, read.composition, depth)) {
        return Unimplemented("%s: %s within %s is not served at depth %d", kWhere,
                             child["type"].get_ref<const std::string&>(), type, depth);
      }
      node.children.push_back(std::move(read));
    }
    return absl::OkStatus();
  }

  static Status ReadWeights(const OrderedJsonFields& fields, HubNode& node) {
    const OrderedJson* arguments = fields.Find("kwargs");
    const auto count = node.children.size();
    node.weights.assign(count, 1.0 / static_cast<double>(count));
    if (arguments == nullptr || !arguments->contains("weights")) return absl::OkStatus();
    const OrderedJson& weights = (*arguments)["weights"];
    const bool numbers = weights.is_array() && weights.size() == count &&
                         std::all_of(weights.begin(), weights.end(), [](const OrderedJson& v) {
                           return v.is_number() && std::abs(v.get<double>()) < 1e9;
                         });
    if (!numbers) {
      return InvalidArgument("%s: weights: expected %d numbers", kWhere, count);
    }
    node.weights = weights.get<std::vector<double>>();
    const double sum = std::accumulate(node.weights.begin(), node.weights.end(), 0.0);
    if (!(std::abs(sum) > 1e-9)) {
      return InvalidArgument("%s: weights: expected a sum other than zero", kWhere);
    }
    for (double& weight : node.weights) weight /= sum;
    return absl::OkStatus();
  }

  const std::string& LastOf(const HubNode& node) const {
    const HubNode* last = &node;
    while (!last->children.empty()) last = &last->children.back();
    return setup_.adapters[last->adapter];
  }

  Status NameFusion(HubNode& node) {
    for (const HubNode& child : node.children) {
      node.fusion += (node.fusion.empty() ? "" : ",") + LastOf(child);
    }
    if (node.children.size() < 2) {
      return Unimplemented("%s: children: a fusion of one adapter is not served", kWhere);
    }
    if (!IsPlainFileName(node.fusion)) {
      return InvalidArgument("%s: children: names too long for a folder", kWhere);
    }
    setup_.fusions.push_back(node.fusion);
    return absl::OkStatus();
  }

  HubSetup& setup_;
};

}  // namespace

StatusOr<double> HubNode::AverageWeight(size_t child, size_t num_present) const {
  const auto count = static_cast<double>(weights.size());
  if (num_present == weights.size()) return weights[child] / count;
  if (num_present == 1) return 1.0 / count;
  return Unimplemented("%s: an average of %d adapters of which %d act at one place is not served",
                       kWhere, weights.size(), num_present);
}

bool HubNode::Names(size_t wanted) const {
  if (composition == HubComposition::kSingle) return adapter == wanted;
  return std::any_of(children.begin(), children.end(),
                     [wanted](const HubNode& child) { return child.Names(wanted); });
}

const HubNode* HubSetup::MultiTask() const {
  if (root.composition == HubComposition::kMultiTask) return &root;
  for (const HubNode& child : root.children) {
    if (child.composition == HubComposition::kMultiTask) return &child;
  }
  return nullptr;
}

StatusOr<HubSetup> ParseHubSetup(const OrderedJson& json) {
  POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields top, OrderedJsonFields::Of(json, kWhere));
  POLYAD_RETURN_IF_ERROR(CheckKeys(json, {"adapter_setup", "version"}));
  const OrderedJson* tree = top.Find("adapter_setup");
  if (tree == nullptr) return InvalidArgument("%s: adapter_setup: expected an object", kWhere);
  HubSetup setup;
  POLYAD_ASSIGN_OR_RETURN(setup.root, Reader(setup).Read(*tree, 0));
  if (setup.root.composition == HubComposition::kSingle) {
    return Unimplemented("%s: type 'single' alone is not served", kWhere);
  }
  int64_t num_choices = 0;
  for (const HubNode& child : setup.root.children) {
    num_choices += child.composition == HubComposition::kMultiTask ? 1 : 0;
  }
  if (num_choices > 1) {
    return Unimplemented("%s: %d compositions of type MultiTask are not served", kWhere,
                         num_choices);
  }
  return setup;
}

}  // namespace polyad
